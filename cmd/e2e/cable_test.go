// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// cableTimeout is far longer than the graces of the rows: what ends before it, ends
// because of the hint.
const cableTimeout = 8 * time.Second

// hinted gives a row its timers, and the variants with a tap the device that the
// kernel throttles.
func hinted(s *setup, host, grace string) {
	s.timeout = cableTimeout
	s.conmgr["link_down_grace"], s.agents["watchdog.link_down_grace"] = grace, grace
	if s.tap {
		s.tapHosts = []string{host}
	}
}

// withoutHints switches them off at both ends.
func withoutHints(s *setup) {
	s.conmgr["link_hints"], s.agents["watchdog.link_hints"] = "off", "off"
}

// unplug takes a host's cable out, inside the second in which the kernel does not
// announce it when the device is one that it throttles.
func (w *world) unplug(h *agenttest.Host) mono.Instant {
	w.Helper()
	if w.tap {
		agenttest.MustFault(w, w.lab.Throttle)
	}
	return agenttest.MustFault(w, h.Unplug).Before
}

// expectHinted checks when something happened that a lost link caused: not before
// the grace, and before the timeout.
func (w *world) expectHinted(what string, cut, at mono.Instant, grace time.Duration) {
	w.Helper()
	took := at.Sub(cut)
	w.measure(what, took)
	if took < grace || took >= cableTimeout {
		w.failf("%s %v after the cable was cut: expected soon after %v", what, took, grace)
	}
}

// The client's link loses its carrier: applications get their error after
// link_down_grace, the server ends their sessions at heartbeat_timeout.
func TestCableClient(t *testing.T) {
	const grace = 300 * time.Millisecond
	prove(t, row{
		name: "cable-client", fastOnly: true, tapped: true,
		with: func(s *setup) { hinted(s, "client", "300ms"); s.agents["watchdog.link_down_grace"] = "1h" },
		off:  withoutHints,
		run: func(w *world) {
			reader, idle := w.open(portPrimary), w.open(portPrimary)
			reader.begin("SELECT pg_sleep(3600)")
			idle.idle()
			watcher := w.target("primary")
			cut := w.unplug(w.client)
			w.expectHinted("blocked read", cut, reader.ended("blocked read").at, grace)
			w.expectHinted("idle", cut, idle.ended("idle").at, grace)
			w.expectHinted("console", cut, watcher.ended("console").at, grace)
			last := w.lastFrame(w.db1, w.client)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectVerdict("backends gone", last, now(), w.timeout)
		},
	})
}

// The database host's link loses its carrier: the watchdog ends the sessions of the
// clients behind it after its own grace, applications get their error at
// heartbeat_timeout.
func TestCableServer(t *testing.T) {
	const grace = 300 * time.Millisecond
	prove(t, row{
		name: "cable-server", fastOnly: true, v4Only: true, tapped: true,
		with: func(s *setup) { hinted(s, "db1", "300ms"); s.conmgr["link_hints"] = "off" },
		off:  withoutHints,
		run: func(w *world) {
			busy, idle := w.open(portPrimary), w.open(portPrimary)
			busy.begin(busyLoop)
			idle.idle()
			w.expect("two backends", func() bool { return w.backends(w.primary, w.client) == 2 })
			cut := w.unplug(w.db1)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectHinted("backends gone", cut, now(), grace)
			last := w.lastFrame(w.client, w.db1)
			w.expectVerdict("busy application", last, busy.ended("busy").at, w.timeout)
			w.expectVerdict("idle application", last, idle.ended("idle").at, w.timeout)
		},
	})
}

// The carrier is away for less than the grace, first at the client, then at the
// database host: nobody is told anything.
func TestCableFlap(t *testing.T) {
	prove(t, row{
		name: "cable-flap", fastOnly: true, v4Only: true, tapped: true,
		with: func(s *setup) {
			hinted(s, "client", "10s")
			if s.tap {
				s.tapHosts = append(s.tapHosts, "db1")
			}
		},
		off: func(s *setup) { // the graces
			s.conmgr["link_down_grace"], s.agents["watchdog.link_down_grace"] = "0", "0"
		},
		run: func(w *world) {
			all := w.witnesses()
			for _, h := range []*agenttest.Host{w.client, w.db1} {
				w.unplug(h)
				all.expectUnnoticed("no carrier at "+h.Name, 300*time.Millisecond)
				agenttest.MustFault(w, h.Plug)
				all.expectUnnoticed("carrier back at "+h.Name, 300*time.Millisecond)
				w.expect("monitored", func() bool { return w.monitoring(w.cm, w.db1) == "monitored" })
			}
			all.expectAlive("after the flaps")
		},
	})
}
