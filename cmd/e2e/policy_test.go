// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The policies that are no default: each case with the actions that other rows
// do not have, the two of them on the two instances of one system. Both see the
// same end of the same conmgr.

// on_timeout = wait: a client host that is back in time keeps its sessions, one
// that is not loses them; ignore: it keeps them.
func TestOnTimeout(t *testing.T) {
	provePolicy(t, "on_timeout", "wait", "ignore", func(w *world) { agenttest.MustFault(w, w.client.Cut) })
}

// on_disconnect = terminate: at once; ignore: never.
func TestOnDisconnect(t *testing.T) {
	provePolicy(t, "on_disconnect", "terminate", "ignore", func(w *world) { agenttest.MustFault(w, w.cm.Process.Kill) })
}

// on_shutdown = wait, then terminate; ignore: never.
func TestOnShutdown(t *testing.T) {
	provePolicy(t, "on_shutdown", "wait", "ignore", func(w *world) { w.must(w.cm.Process.Stop(w.Context())) })
}

// provePolicy checks what becomes of the client's sessions on db1 and on db2,
// which have an action each for the same case.
func provePolicy(t *testing.T, parameter, first, second string, end func(w *world)) {
	prove(t, row{
		name: parameter, tcpOnly: parameter == "on_disconnect", with: func(s *setup) { calm(s); s.noAgents, s.noConmgr = true, true },
		off: func(s *setup) { s.policyOff = true }, // the defaults
		run: func(w *world) {
			w.startAgentsWith(parameter, first, second)
			w.cm = w.startConmgr(w.client, nil)
			w.awaitMonitored(w.cm)
			one, two := w.crowd(w.directly(w.client, w.primary)), w.crowd(w.directly(w.client, w.standby))
			began := now()
			end(w)
			if first == "wait" {
				w.expectNever("ended at once, though the policy is wait", policyWait-time.Second, func() bool {
					return w.living(w.primary, one.pids()) != one.size()
				})
			}
			w.expect("no backend of the client on db1", func() bool { return w.living(w.primary, one.pids()) == 0 })
			w.measure("backends gone, "+first, now().Sub(began))
			w.expectNever("a backend ended on db2", w.rest(), func() bool {
				return w.living(w.standby, two.pids()) != two.size()
			})
			w.expect("the decision on record", func() bool {
				return strings.Contains(w.watchdogEvents(w.standby), `"kind":"session end ignored"`)
			})
		},
	})
}

// startAgentsWith starts the agents with a value each of a policy.
func (w *world) startAgentsWith(parameter, first, second string) {
	w.Helper()
	common := w.agents
	start := func(p *agenttest.Postgres, value string) *agenttest.Process {
		w.agents = maps.Clone(common)
		if !w.policyOff {
			w.agents["watchdog."+parameter] = value
		}
		return w.startAgent(p)
	}
	w.agent1, w.agent2 = start(w.primary, first), start(w.standby, second)
}

// on_timeout = wait: the client host is back in time.
func TestWaitComeback(t *testing.T) {
	prove(t, row{
		name: "wait-comeback", off: func(s *setup) { s.agents["watchdog.on_timeout"] = "terminate" },
		with: func(s *setup) { alone(s); s.agents["watchdog.on_timeout"] = "wait" },
		run: func(w *world) {
			direct := w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.client.Cut)
			w.expect("the agent waits", func() bool {
				return strings.Contains(w.watchdogEvents(w.primary), `"kind":"waiting for comeback"`)
			})
			agenttest.MustFault(w, w.client.Heal)
			direct.expectUntouched("back in time", policyWait+w.timeout)
		},
	})
}

// dry_run: nobody is ended, and the record names who would have been.
func TestDryRun(t *testing.T) {
	prove(t, row{
		name: "dry-run", off: func(s *setup) { delete(s.agents, "watchdog.dry_run") },
		with: func(s *setup) { alone(s); dryRun(s) },
		run: func(w *world) {
			apps := w.crowd(w.through(portPrimary))
			agenttest.MustFault(w, w.client.Cut)
			w.expect("a record of the dry run", func() bool {
				return strings.Contains(w.watchdogEvents(w.primary), `"outcome":"dry run"`)
			})
			for _, pid := range apps.pids() {
				if !w.recorded("dry run", pid) {
					w.failf("the record does not name backend %d", pid)
				}
			}
			w.expectNever("a backend ended", w.rest(), func() bool { return w.living(w.primary, apps.pids()) != apps.size() })
		},
	})
}

// Two conmgrs on one host: while one lives, so does the host.
func TestSharedAddress(t *testing.T) {
	prove(t, row{
		name: "shared-address", off: func(s *setup) { s.agents["watchdog.shared_address"] = "terminate" },
		with: func(s *setup) { calm(s); alone(s); s.agents["watchdog.on_disconnect"] = "terminate" },
		run: func(w *world) {
			second := w.startConmgrAs(w.client, "second", map[string]string{"port": "27556", "proxy_listen": "'27561:primary'"})
			w.awaitMonitored(second)
			apps, direct := w.crowd(w.through(27561)), w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.cm.Process.Kill)
			apps.expectUntouched("the second conmgr lives", policyWait)
			direct.expectUntouched("the second conmgr lives", 0)
			killed := agenttest.MustFault(w, second.Process.Kill)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.measure("last one killed to backends gone", now().Sub(killed.After))
		},
	})
}

// A conmgr on the database host itself, over its own address: never ended.
func TestProtect(t *testing.T) {
	prove(t, row{
		name: "protect", off: func(s *setup) { s.agents["watchdog.protect"] = "192.0.2.1" },
		with: func(s *setup) {
			calm(s)
			alone(s)
			s.noConmgr = true
			s.agents["watchdog.on_disconnect"] = "terminate"
		},
		run: func(w *world) {
			w.cm = w.startConmgr(w.db1, nil)
			w.awaitMonitored(w.cm)
			direct := w.crowd(w.directly(w.db1, w.primary))
			agenttest.MustFault(w, w.cm.Process.Kill)
			direct.expectUntouched("its conmgr was killed", policyWait)
			w.must(w.cm.Start(w.Context()))
			w.awaitMonitored(w.cm)
			w.must(w.cm.Process.Stop(w.Context()))
			direct.expectUntouched("its conmgr was stopped", w.rest())
		},
	})
}

// A client that is not in watchdog.clients is refused, and conmgr says so.
func TestClientsRefused(t *testing.T) {
	prove(t, row{
		name: "clients-refused", tcpOnly: true, off: func(s *setup) { delete(s.agents, "watchdog.clients") },
		with: func(s *setup) {
			calm(s)
			alone(s)
			s.noConmgr = true
			s.agents["watchdog.clients"] = "192.0.2.0/24, fd00:dead::/64"
		},
		run: func(w *world) {
			w.cm = w.startConmgr(w.client, nil)
			w.expect("conmgr says why", func() bool {
				return w.logged(w.cm.Process, "the address of this host is not in watchdog.clients")
			})
			w.expect("the agent says who", func() bool { return w.logged(w.agent1, w.addr(w.client).String()) })
			w.expectNever("monitored", w.rest(), func() bool { return w.monitoring(w.cm, w.db1) == "monitored" })
			direct := w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.cm.Process.Kill)
			direct.expectUntouched("the refused conmgr was killed", w.rest())
		},
	})
}

// A conmgr beside a standby dies: the host lives, so its replication does, too.
// The host vanishes: replication ends with the rest.
func TestReplicationSpared(t *testing.T) {
	prove(t, row{
		name: "replication", tcpOnly: true, v4Only: true, off: func(s *setup) { s.agents["watchdog.terminate_replication"] = "on" },
		with: func(s *setup) {
			calm(s)
			s.noConmgr = true
			s.agents["watchdog.on_disconnect"] = "terminate"
		},
		run: func(w *world) {
			w.cm = w.startConmgr(w.db2, nil)
			w.awaitMonitored(w.cm)
			direct := w.crowd(w.directly(w.db2, w.primary))
			sender := w.walsender()
			agenttest.MustFault(w, w.cm.Process.Kill)
			w.expect("no session of the host", func() bool { return w.living(w.primary, direct.pids()) == 0 })
			w.expectNever("replication was ended", w.rest(), func() bool { return w.walsender() != sender })

			w.must(w.cm.Start(w.Context()))
			w.awaitMonitored(w.cm)
			agenttest.MustFault(w, w.db2.Cut)
			w.expect("replication of a dead host ended", func() bool { return w.walsender() == "" })
			w.measure("silence to walsender gone", now().Sub(w.lastFrame(w.db1, w.db2)))
		},
	})
}

// walsender is the pid of the primary's walsender, "" while there is none.
func (w *world) walsender() string {
	w.Helper()
	return strings.Join(agenttest.MustQuery(w, w.primary, "SELECT pid::text FROM pg_stat_replication"), " ")
}
