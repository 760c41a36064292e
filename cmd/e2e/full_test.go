// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// All connections of the instance are taken, the reserved ones too, when the
// client that holds them vanishes: its backends end all the same.
func TestFull(t *testing.T) {
	prove(t, row{
		name: "full",
		with: func(s *setup) {
			s.postgres = map[string]string{"max_connections": "20"}
		},
		off: func(s *setup) { s.agents["watchdog.dry_run"] = "on" },
		run: func(w *world) {
			watcher, err := w.primary.Connect(w.Context())
			w.must(err)
			w.Cleanup(func() { closeSoon(watcher) })
			backends := func() (n int) {
				w.must(watcher.QueryRow(w.Context(), "SELECT count(*) FROM pg_stat_activity WHERE client_addr = $1", w.addr(w.client)).Scan(&n))
				return n
			}
			first := w.open(portPrimary)
			first.begin(busyLoop)
			w.fill(w.primary)
			if backends() < 10 {
				w.Fatalf("%d backends of the client: expected most of the connections", backends())
			}
			agenttest.MustFault(w, w.client.Cut)
			w.expect("no backend of the client", func() bool { return backends() == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			agenttest.MustExec(w, w.primary, "SELECT")
		},
	})
}

// fill takes every connection of an instance from the client's host.
func (w *world) fill(p *agenttest.Postgres) {
	w.Helper()
	for range 100 {
		conn, err := w.connect(w.client, w.addr(p.Host).String(), int(p.Port))
		if err != nil {
			w.Logf("the instance is full: %v", err)
			return
		}
		w.adopt(conn)
	}
	w.Fatal("the instance does not get full")
}
