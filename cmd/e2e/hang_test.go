// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// talker is an application that asks all the time.
func (w *world) talker(open func() *app) *app {
	w.Helper()
	a := open()
	a.begin("SELECT 1")
	if end := a.ended("a first answer"); end.err != nil {
		w.failf("a first answer: %v", end.err)
	}
	a.background.Go(func() {
		for {
			if _, err := a.conn.Exec(w.Context(), "SELECT pg_sleep(0.01)"); err != nil {
				a.ends <- appEnd{at: now(), err: err}
				return
			}
		}
	})
	return a
}

// conmgr stands still, its host and the applications live: the applications
// notice nothing, the server sees that the host lives, gives conmgr one more
// timeout (on_hang = wait) and then ends the sessions.
func TestConmgrHang(t *testing.T) {
	prove(t, row{
		name: "conmgr-hang", with: func(s *setup) { calm(s); alone(s) },
		// Taken for a silent host, as without the last look.
		off: func(s *setup) { s.agents["watchdog.on_hang"] = "terminate" },
		run: func(w *world) {
			direct, other := w.crowd(w.directly(w.client, w.primary)), w.crowd(w.directly(w.db2, w.primary))
			busy := w.talker(w.directly(w.client, w.primary))
			_, err := w.cm.Process.Pause()
			w.must(err)
			e := w.expectWarrant(w.primary, "host alive")
			if !strings.HasPrefix(e.Evidence, "host alive: newest of") || e.SocketsDestroyed+e.Ended > 0 {
				w.failf("record %+v: expected the evidence and nobody ended", e)
			}
			waits := now()
			// The wait lasts 3 s at least, see policyWait.
			direct.expectUntouched("while the policy waits", policyWait-time.Second)
			if busy.hasEnded() {
				w.failf("the busy application ended while the policy waits")
			}
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("host alive to backends gone", now().Sub(waits))
			if end := busy.ended("the busy application"); end.err == nil {
				w.failf("the busy application ended without an error")
			}
			other.expectUntouched("another host", 0)
			_, err = w.cm.Process.Resume()
			w.must(err)
			w.expectMonitored()
		},
	})
}

// conmgr goes on in time: the server ends nobody. The applications are idle: by
// TCP the kernel that acknowledges heartbeats is evidence enough. (Those through
// conmgr get an error from it: it is told that it was given up.)
func TestConmgrHangBack(t *testing.T) {
	prove(t, row{
		name: "conmgr-hang-back", tcpOnly: true, with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { s.agents["watchdog.on_hang"] = "terminate" },
		run: func(w *world) {
			direct := w.crowd(w.directly(w.client, w.primary))
			_, err := w.cm.Process.Pause()
			w.must(err)
			e := w.expectWarrant(w.primary, "host alive")
			_, err = w.cm.Process.Resume()
			w.must(err)
			w.expectMonitored()
			direct.expectUntouched("after the hang", policyWait+w.timeout)
			if !strings.Contains(e.Evidence, "heard") {
				w.failf("record %+v: expected the evidence", e)
			}
		},
	})
}

// The path loses heartbeats alone, and the applications talk on: the host lives.
func TestHeartbeatPathLost(t *testing.T) {
	prove(t, row{
		name: "heartbeat-path-lost", with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { s.agents["watchdog.on_hang"] = "terminate" },
		run: func(w *world) {
			busy := w.talker(w.directly(w.client, w.primary))
			agenttest.MustFault(w, func(ctx context.Context) (agenttest.Effect, error) { return w.client.DropPort(ctx, portHeartbeat) })
			w.expectWarrant(w.primary, "host alive")
			agenttest.MustFault(w, w.client.Heal)
			w.expectMonitored()
			w.expectNever("the busy application was ended", policyWait+w.timeout, busy.hasEnded)
		},
	})
}
