// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The client host stands still, cut off, longer than the timeout: the server ends
// its sessions at the timeout. When the host goes on its applications get their
// error, and new sessions are served.
func TestClientPause(t *testing.T) {
	prove(t, row{
		name: "client-pause", with: alone, off: dryRun,
		run: func(w *world) {
			other := w.crowd(w.directly(w.db2, w.primary))
			apps := w.crowd(w.through(portPrimary))
			agenttest.MustFault(w, w.client.Cut)
			agenttest.MustFault(w, w.client.Freeze)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			agenttest.MustFault(w, w.client.Heal)
			resumed := agenttest.MustFault(w, w.client.Thaw)
			w.measure("resumed to error", apps.expectErrors("on resume").at.Sub(resumed.Before))
			w.expectMonitored()
			fresh := w.crowd(w.through(portPrimary))
			fresh.expectUntouched("after the pause", w.rest())
			other.expectUntouched("another host", 0)
		},
	})
}
