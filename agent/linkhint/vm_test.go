// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// What this machine's kernel may not do, a stock Debian kernel does: the tests of
// the BPF sources run in virtual machines.
func TestInVirtualMachine(t *testing.T) {
	agenttest.RunInGuests(t, agenttest.Guest{
		Short:   "^Test(BPF|Sources$)",
		All:     "^Test(BPF|Sources$|WithoutRights$)",
		Modules: []string{"dummy", "bonding", "8021q"},
	})
}
