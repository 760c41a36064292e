// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// kernelSockets are the connections of a host with another one, as the other
// one's kernel shows them, that a kill could hit.
func (w *world) kernelSockets(at, peer *agenttest.Host) []sockdiag.Socket {
	w.Helper()
	var found []sockdiag.Socket
	w.must(at.Do(func() error {
		c, err := sockdiag.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		var prefixes []netip.Prefix
		for _, a := range []netip.Addr{peer.Addr4, peer.Addr6} {
			prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
		}
		found, err = c.Find(w.Context(), sockdiag.Filter{Peers: prefixes, States: sockdiag.Killable})
		return err
	}))
	return found
}

// warrantEvent is the part of a recorded warrant that rows look at.
type warrantEvent struct {
	Kind, Outcome, Evidence, Sockets string
	Addr                             netip.Addr
	Warrant                          uint64
	SocketsDestroyed                 int `json:"sockets_destroyed"`
	SocketsSpared                    int `json:"sockets_spared"`
	Backends, Ended                  int
	PIDs                             []uint32
	StepsMS                          map[string]float64 `json:"steps_ms"`
}

// warrants are the executed warrants that the agent beside an instance has
// recorded.
func (w *world) warrants(p *agenttest.Postgres) []warrantEvent {
	w.Helper()
	var found []warrantEvent
	for line := range strings.Lines(w.watchdogEvents(p)) {
		var e warrantEvent
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "warrant" {
			found = append(found, e)
		}
	}
	return found
}

// expectWarrant waits for the record of a warrant with an outcome.
func (w *world) expectWarrant(p *agenttest.Postgres, outcome string) (found warrantEvent) {
	w.Helper()
	w.expect("a warrant recorded as "+outcome, func() bool {
		for _, e := range w.warrants(p) {
			if e.Outcome == outcome {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// The client host vanishes: its sockets are gone as soon as its backends are, and
// the record tells who, on what evidence, how many and how fast.
func TestSocketsGone(t *testing.T) {
	prove(t, row{
		name: "sockets-gone", with: alone, off: dryRun,
		run: func(w *world) {
			apps, other := w.crowd(w.directly(w.client, w.primary)), w.crowd(w.directly(w.db2, w.primary))
			agenttest.MustFault(w, w.client.Cut)
			w.expect("no socket of the client", func() bool {
				n := 0
				for _, s := range w.kernelSockets(w.db1, w.client) {
					if s.Local.Port() == w.primary.Port {
						n++
					}
				}
				return n == 0
			})
			w.expectVerdict("sockets gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			e := w.expectWarrant(w.primary, "done")
			if e.Addr != w.addr(w.client) || e.SocketsDestroyed < apps.size() || !strings.HasPrefix(e.Evidence, "host silent: newest of") {
				w.failf("record %+v: expected %d sockets or more, and the evidence", e, apps.size())
			}
			for _, pid := range apps.pids() {
				if !slices.Contains(e.PIDs, pid) {
					w.failf("record %+v: expected backend %d to be named", e, pid)
				}
			}
			for _, step := range []string{"look", "sockets", "read"} {
				w.measure("step "+step, time.Duration(e.StepsMS[step]*float64(time.Millisecond)))
			}
			other.expectUntouched("another host", 0)
		},
	})
}

// A thousand sessions of one client end in one run.
func TestThousand(t *testing.T) {
	prove(t, row{
		name: "thousand", v4Only: true, tcpOnly: true, fastOnly: true, off: dryRun,
		with: func(s *setup) {
			alone(s)
			s.timeout = 5 * time.Second // to begin with, 1,000 processes start
			s.postgres = map[string]string{"max_connections": "1050"}
		},
		run: func(w *world) {
			many := 1000
			if w.impatient > 0 { // the variant that must fail does with fewer
				many = 10
			}
			open := w.directly(w.client, w.primary)
			for range many {
				open()
			}
			other := w.crowd(w.directly(w.db2, w.primary))
			agenttest.MustFault(w, w.client.Cut)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			e := w.expectWarrant(w.primary, "done")
			others := slices.ContainsFunc(w.warrants(w.primary), func(o warrantEvent) bool { return o.Warrant != e.Warrant })
			if others || e.Ended != many {
				w.failf("other warrants %v, %d backends ended: expected one warrant for %d", others, e.Ended, many)
			}
			// The agent's turn at each socket comes among the backends that it woke: there
			// is a limit to how long it tries.
			if e.SocketsDestroyed != many && !strings.Contains(e.Sockets, "deadline exceeded") {
				w.failf("%d sockets destroyed, %s: expected %d", e.SocketsDestroyed, e.Sockets, many)
			}
			other.expectUntouched("another host", 0)
		},
	})
}

// The agent runs as a plain user: one warning, and the backends end all the same.
func TestMissingCapability(t *testing.T) {
	prove(t, row{
		name: "missing-capability", off: dryRun,
		with: func(s *setup) {
			alone(s)
			s.agentOptions.User = "postgres"
		},
		run: func(w *world) {
			apps := w.crowd(w.directly(w.client, w.primary))
			agenttest.MustFault(w, w.client.Cut)
			w.expect("no backend of the client", func() bool { return w.living(w.primary, apps.pids()) == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			e := w.expectWarrant(w.primary, "done")
			if e.SocketsDestroyed > 0 || !strings.Contains(e.Sockets, "CAP_NET_ADMIN is missing") || !strings.HasPrefix(e.Evidence, "host silent: newest of") {
				w.failf("record %+v: expected no socket, and why, but the evidence", e)
			}
			log, err := w.agent1.Log()
			w.must(err)
			if n := strings.Count(log, "sockets of dead clients cannot be destroyed"); n != 1 {
				w.failf("%d warnings of the missing right: expected one", n)
			}
		},
	})
}

// The sessions of the database host's own address are to be ended, and the agent's
// own are among them, over TCP: they alone stay.
func TestOwnConnections(t *testing.T) {
	prove(t, row{
		name: "own-connections", v4Only: true, tcpOnly: true, off: dryRun,
		with: func(s *setup) {
			calm(s)
			alone(s)
			s.noAgents, s.noConmgr = true, true
			s.agents["watchdog.protect"] = "192.0.2.1"
			s.agents["watchdog.on_disconnect"] = "terminate"
		},
		run: func(w *world) {
			w.agentOptions.DSN = fmt.Sprintf("host=%v port=%d user=postgres dbname=postgres", w.db1.Addr4, w.primary.Port)
			w.agent1 = w.startAgent(w.primary)
			w.cm = w.startConmgr(w.db1, nil)
			w.awaitMonitored(w.cm)
			direct, agents := w.crowd(w.directly(w.db1, w.primary)), w.agentSessions()
			agenttest.MustFault(w, w.cm.Process.Kill)
			w.expect("no other session of the host", func() bool { return w.living(w.primary, direct.pids()) == 0 })
			e := w.expectWarrant(w.primary, "done")
			if got := w.agentSessions(); got != agents || e.SocketsSpared < 2 {
				w.failf("the agent's own sessions were %q and are %q, record %+v", agents, got, e)
			}
		},
	})
}

// watchdog.ports: what a dead client has with a pooler on the database host is
// closed too, over both families of a dual-stack listener; other clients and other
// ports are not touched.
func TestPoolerPorts(t *testing.T) {
	prove(t, row{
		name: "pooler-ports", off: func(s *setup) { delete(s.agents, "watchdog.ports") },
		with: func(s *setup) {
			alone(s)
			s.agents["watchdog.ports"] = "6432, 27545" // the heartbeat's is never touched
		},
		run: func(w *world) {
			pooler, elsewhere := w.listener(w.db1, "[::]:6432"), w.listener(w.db1, "[::]:6433")
			dead := pooler.accept(w.client)
			other, otherPort := pooler.accept(w.db2), elsewhere.accept(w.client)
			heartbeat := w.accepted(portHeartbeat)
			agenttest.MustFault(w, w.client.Cut)
			if err := dead.readEnd(); !errors.Is(err, syscall.ECONNABORTED) {
				w.failf("the pooler's read ended with %v: expected ECONNABORTED", err)
			}
			w.expectVerdict("pooler's socket gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			w.expectWarrant(w.primary, "done")
			agenttest.MustFault(w, w.client.Heal)
			other.expectAlive("another client of the pooler")
			otherPort.expectAlive("another port")
			pooler.accept(w.client).expectAlive("a new client of the pooler")
			if !w.udp && heartbeat == 0 {
				w.failf("no heartbeat connection was there to be spared")
			}
		},
	})
}

// accepted counts the client's connections with a port of db1.
func (w *world) accepted(port uint16) (n int) {
	w.Helper()
	for _, s := range w.kernelSockets(w.db1, w.client) {
		if s.Local.Port() == port {
			n++
		}
	}
	return n
}

// listener is a server that speaks no protocol.
type listener struct {
	w *world
	net.Listener
	on *agenttest.Host
}

func (w *world) listener(on *agenttest.Host, addr string) listener {
	w.Helper()
	l, err := on.Listen(w.Context(), "tcp", addr)
	w.must(err)
	w.Cleanup(func() { _ = l.Close() })
	return listener{w, l, on}
}

// accept connects from a host, in the variant's family.
func (l listener) accept(from *agenttest.Host) pipe {
	l.w.Helper()
	port := l.Addr().(*net.TCPAddr).Port
	a, err := from.Dial(l.w.Context(), "tcp", net.JoinHostPort(l.w.addr(l.on).String(), fmt.Sprint(port)))
	l.w.must(err)
	b, err := l.Accept()
	l.w.must(err)
	l.w.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return pipe{l.w, a, b}
}

// readEnd waits for the end of the server's side of a connection.
func (p pipe) readEnd() error {
	_ = p.b.SetReadDeadline(time.Now().Add(p.w.patience()))
	_, err := p.b.Read(make([]byte, 1))
	return err
}

// Clients of both families of a listener on every address die together.
func TestBothFamilies(t *testing.T) {
	prove(t, row{
		name: "both-families", v4Only: true, fastOnly: true, off: dryRun,
		with: func(s *setup) {
			alone(s)
			calm(s)
			s.hosts = []string{"client6"}
		},
		run: func(w *world) {
			six := w.lab.Host("client6")
			second := w.startConmgrAs(six, "six", map[string]string{"backend_hostaddr0": "'" + w.db1.Addr6.String() + "'"})
			w.awaitMonitored(second)
			four := w.crowd(w.directly(w.client, w.primary))
			w.v6 = true
			apps6, other := w.crowd(w.directly(six, w.primary)), w.crowd(w.directly(w.db2, w.primary))
			w.v6 = false
			for _, h := range []*agenttest.Host{w.client, six} {
				agenttest.MustFault(w, func(ctx context.Context) (agenttest.Effect, error) { return h.Cut(ctx) })
			}
			w.expect("no backend of either", func() bool {
				return w.living(w.primary, four.pids())+w.living(w.primary, apps6.pids()) == 0
			})
			w.expect("both recorded", func() bool { return len(w.warrants(w.primary)) == 2 })
			for _, e := range w.warrants(w.primary) {
				if e.SocketsDestroyed < four.size() {
					w.failf("record %+v: expected %d sockets or more", e, four.size())
				}
			}
			other.expectUntouched("another host", 0)
		},
	})
}
