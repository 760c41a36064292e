// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"os"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// TestMain fails when a Watcher leaves goroutines or descriptors.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(runChild())
	}
	os.Exit(agenttest.RunWithoutLeaks(m, os.Stderr))
}
