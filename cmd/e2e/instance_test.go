// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// noHeartbeat makes silence tell nothing for longer than any test runs, so that
// what happens was caused by what the agent said.
func noHeartbeat(s *setup) { s.timeout = 9 * time.Minute }

// without switches the agents off.
func without(s *setup) { s.agentsAway = true }

// The postmaster dies at once and alone: its backends live on for as long as
// they are busy, but their applications are told.
func TestCrash(t *testing.T) {
	prove(t, row{
		name: "crash", with: noHeartbeat, off: without,
		run: func(w *world) {
			busy, idle := w.open(portPrimary), w.open(portPrimary)
			busy.begin(busyLoop)
			idle.idle()
			watcher := w.target("primary")
			healthy := w.open(portStandby)
			w.switchOffAgents()
			crash := agenttest.MustFault(w, w.primary.Kill9)
			w.measure("busy application", busy.ended("busy").at.Sub(crash.Before))
			w.measure("idle application", idle.ended("idle").at.Sub(crash.Before))
			end := watcher.ended("console")
			w.measure("console", end.at.Sub(crash.Before))
			if end.fault.Reason != "down" {
				w.failf("reason %q: expected down", end.fault.Reason)
			}
			healthy.exec("SELECT")
		},
	})
}

// The instance is restarted: whoever belonged to the old postmaster is told,
// nobody of the new one.
func TestRestart(t *testing.T) {
	prove(t, row{
		name: "restart", with: noHeartbeat, off: without,
		run: func(w *world) {
			old := w.open(portPrimary)
			old.idle()
			watcher := w.target("primary")
			healthy := w.open(portStandby)
			w.switchOffAgents()
			began := now()
			w.must(w.primary.Restart(w.Context()))
			if end := old.ended("old session"); end.err == nil {
				w.failf("an old session ended without an error")
			}
			w.measure("console", watcher.ended("console").at.Sub(began))
			restarted := now()
			young := w.open(portPrimary)
			w.measure("restart to connect", now().Sub(restarted))
			// Longer than the agent takes to see everything of the new postmaster.
			w.expectNever("a session of the new postmaster was ended", 2*time.Second, func() bool {
				_, err := young.conn.Exec(w.Context(), "SELECT")
				return err != nil
			})
			healthy.exec("SELECT")
			if !w.agent1.Running() {
				w.failf("the agent ended with its instance")
			}
		},
	})
}

// The instance is restarted while its agent is away: on the agent's return those
// of the old postmaster are told, those of the new one are not.
func TestRestartMeanwhile(t *testing.T) {
	prove(t, row{
		name: "restart meanwhile", off: without,
		with: func(s *setup) { s.postgres = map[string]string{"log_connections": "on"} },
		run: func(w *world) {
			watcher := w.target("primary")
			knocks := func() int {
				return len(w.lines(w.primary.Process(), "connection received: host="+w.addr(w.client).String()))
			}
			before := knocks()
			w.must(w.agent1.Stop(w.Context()))
			w.expect("db1 unmonitored", func() bool { return w.monitoring(w.cm, w.db1) == "unmonitored" })
			// conmgr asks the instance's door now and then not for five seconds,
			// else it might find it closed, which is a fault of another kind.
			w.expect("the door was asked", func() bool { return knocks() > before })
			w.must(w.primary.Restart(w.Context()))
			young := w.open(portPrimary)
			bound := w.target("primary")
			if w.agentsAway {
				watcher.ended("console of the old postmaster")
			}
			w.agent1 = w.startAgent(w.primary)
			if reason := watcher.ended("console of the old postmaster").fault.Reason; reason != "restart" {
				w.failf("reason %q: expected restart", reason)
			}
			w.expect("db1 monitored", func() bool { return w.monitoring(w.cm, w.db1) == "monitored" })
			young.exec("SELECT")
			if bound.hasEnded() {
				w.failf("the console session of the new postmaster was ended")
			}
		},
	})
}

// The postmaster is stopped: sessions go on, new ones go elsewhere, and come
// back after it.
func TestHung(t *testing.T) {
	prove(t, row{
		name: "hung",
		with: func(s *setup) {
			s.agents["watchdog.check_accept_interval"] = "200ms"
			s.agents["watchdog.accept_timeout"] = "200ms"
			s.conmgr["load_balance"] = "first"
		},
		off: func(s *setup) { s.agents["watchdog.check_accept_interval"] = "1h" },
		run: func(w *world) {
			held := w.open(portAny)
			if got := held.value("SELECT host(inet_server_addr())"); got != w.addr(w.db1).String() {
				w.failf("the session is on %s: expected the first instance", got)
			}
			watcher := w.target("primary")
			postmaster := w.primary.Process()
			_, err := postmaster.Pause()
			w.must(err)
			stopped := now()
			w.expect("a new connection goes to the other instance", func() bool {
				return w.landsOn(portAny) == w.addr(w.db2).String()
			})
			w.measure("hung to connects elsewhere", now().Sub(stopped))
			held.exec("CREATE TABLE written_while_hung (i int)")
			w.expectNever("the console session of the hung instance was ended", time.Second, func() bool {
				return len(watcher.ends) > 0
			})
			_, err = postmaster.Resume()
			w.must(err)
			resumed := now()
			w.expect("new connections come back", func() bool {
				return w.landsOn(portAny) == w.addr(w.db1).String()
			})
			w.measure("resumed to connects back", now().Sub(resumed))
			held.exec("SELECT")
		},
	})
}
