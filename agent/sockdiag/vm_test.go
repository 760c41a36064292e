// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Sockets are killed on stock Debian kernels, too, where inet_diag is a module.
func TestInVirtualMachine(t *testing.T) {
	agenttest.RunInGuests(t, agenttest.Guest{
		All:     "^Test",
		Skip:    "^TestManyEndInOneRun$", // half a minute of emulation
		Modules: []string{"inet_diag", "tcp_diag"},
	})
}
