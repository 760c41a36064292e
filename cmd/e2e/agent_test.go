// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// alone leaves db2 without an instance.
func alone(s *setup) { s.noStandby = true }

// silenceIsFault makes conmgr take an agent's silence for the instance's death.
func silenceIsFault(s *setup) { s.conmgr["agent_silence"] = "fault" }

// dryRun makes the agents do everything but kill.
func dryRun(s *setup) { s.agents["watchdog.dry_run"] = "on" }

// rest is how long a row looks whether something happens that must not.
func (w *world) rest() time.Duration { return 4*w.timeout + 200*time.Millisecond }

// expectUnmonitored waits until conmgr is without the agent and still serves.
func (w *world) expectUnmonitored() {
	w.Helper()
	w.expect("db1 unmonitored", func() bool { return w.monitoring(w.cm, w.db1) == "unmonitored" })
	w.open(portPrimary).exec("SELECT 1")
}

func (w *world) expectMonitored() {
	w.Helper()
	w.expect("db1 monitored", func() bool { return w.monitoring(w.cm, w.db1) == "monitored" })
}

// The agent is killed and started again: nobody notices, here or there.
func TestAgentRestart(t *testing.T) {
	prove(t, row{
		name: "agent-restart", with: func(s *setup) { calm(s); alone(s) },
		off: func(s *setup) { // not in time
			silenceIsFault(s)
			s.away = 2 * s.timeout
		},
		run: func(w *world) {
			apps, direct := w.crowd(w.through(portPrimary)), w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.agent1.Kill)
			w.expectNever("unmonitored, though the agent may be back in time", w.away, func() bool {
				return w.monitoring(w.cm, w.db1) == "unmonitored"
			})
			started := now()
			w.agent1 = w.startAgent(w.primary)
			w.expect("heard of the new agent", func() bool {
				return w.lastFrame(w.client, w.db1).After(started)
			})
			w.expectMonitored()
			w.measure("start to monitored", now().Sub(started))
			apps.expectUntouched("after the restart", policyWait)
			direct.expectUntouched("after the restart", 0)
		},
	})
}

// The agent is killed and stays away: unmonitored, and everything goes on.
func TestAgentDeath(t *testing.T) {
	prove(t, row{
		name: "agent-death", with: func(s *setup) { calm(s); alone(s) }, off: silenceIsFault,
		run: func(w *world) {
			apps := w.crowd(w.through(portPrimary))
			agenttest.MustFault(w, w.agent1.Kill)
			w.expectUnmonitored()
			apps.expectUntouched("without an agent", 2*w.timeout)
			w.agent1 = w.startAgent(w.primary)
			w.expectMonitored()
			apps.expectUntouched("after the return", policyWait)
		},
	})
}

// The agent is stopped, as an upgrade does, and comes back.
func TestAgentStop(t *testing.T) {
	prove(t, row{
		name: "agent-stop", with: func(s *setup) { calm(s); alone(s) }, off: silenceIsFault,
		run: func(w *world) {
			apps := w.crowd(w.through(portPrimary))
			w.must(w.agent1.Stop(w.Context()))
			stopped := now()
			w.expectUnmonitored()
			w.measure("stopped to unmonitored", now().Sub(stopped))
			apps.expectUntouched("without an agent", 2*w.timeout)
			w.agent1 = w.startAgent(w.primary)
			w.expectMonitored()
			apps.expectUntouched("after the return", policyWait)
		},
	})
}

// The agent hangs for ten timeouts. When it goes on it has heard nobody for as
// long, and kills nobody for that.
func TestAgentHang(t *testing.T) {
	prove(t, row{
		name: "agent-hang", with: func(s *setup) { alone(s); s.timeout = 600 * time.Millisecond }, off: silenceIsFault,
		run: func(w *world) {
			apps, direct := w.crowd(w.through(portPrimary)), w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, func(context.Context) (agenttest.Effect, error) { return w.agent1.Pause() })
			paused := now()
			w.expectUnmonitored()
			w.measure("paused to unmonitored", now().Sub(paused))
			apps.expectUntouched("while the agent hangs", 10*w.timeout)
			w.must(w.agent1.Signal(syscall.SIGCONT))
			w.expectMonitored()
			apps.expectUntouched("after it hung", policyWait)
			direct.expectUntouched("after it hung", 0)
		},
	})
}

// The client host vanishes while the agent is away: judged after its return.
func TestClientDiesMeanwhile(t *testing.T) {
	prove(t, row{
		name: "client-dies-meanwhile", with: alone, off: dryRun,
		run: func(w *world) {
			other := w.crowd(w.directly(w.db2, w.primary))
			apps := w.crowd(w.through(portPrimary))
			agenttest.MustFault(w, w.agent1.Kill)
			agenttest.MustFault(w, w.client.Cut)
			w.expectNever("a backend ended without an agent", w.timeout, func() bool {
				return w.living(w.primary, apps.pids()) != apps.size()
			})
			w.agent1 = w.startAgent(w.primary)
			w.expect("the agent serves", func() bool { return w.logged(w.agent1, "serving heartbeats") })
			back := now()
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("return to backends gone", now().Sub(back))
			other.expectUntouched("after the kill", 0)
		},
	})
}

// The database host stands still, cut off, and comes back: the applications
// have their error from the timeout on, and the agent, which heard nobody, kills
// nobody.
func TestServerPause(t *testing.T) {
	prove(t, row{
		name: "server-pause", with: alone, off: func(s *setup) { s.timeout = 9 * time.Minute },
		run: func(w *world) {
			apps, direct := w.crowd(w.through(portPrimary)), w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.db1.Cut)
			agenttest.MustFault(w, w.db1.Freeze)
			last := w.lastFrame(w.client, w.db1)
			w.expectVerdict("application's error", last, apps.expectErrors("cut off").at, w.timeout)
			w.expectNever("a direct session ended", 2*w.timeout, direct.disturbed)
			agenttest.MustFault(w, w.db1.Heal)
			agenttest.MustFault(w, w.db1.Thaw)
			w.expectMonitored()
			direct.expectUntouched("after the pause", policyWait)
			w.open(portPrimary).exec("SELECT 1")
		},
	})
}
