// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// The client host vanishes: its backends end, whatever they do, and their locks
// are free.
func TestSilentClient(t *testing.T) {
	prove(t, row{
		name: "silent-client", with: alone, off: dryRun,
		run: func(w *world) {
			holders := w.lockHolders()
			watcher, err := w.primary.Connect(w.Context())
			w.must(err)
			defer watcher.Close(context.WithoutCancel(w.Context()))
			agenttest.MustFault(w, w.client.Cut)
			free := map[string]mono.Instant{}
			w.expect("all locks free", func() bool {
				w.noteFree(watcher, holders, free)
				return len(free) == len(holders)
			})
			for what, at := range free {
				last := w.lastFrame(w.db1, w.client)
				w.expectVerdict("lock free: "+what, last, at, w.timeout)
				w.measure("lock free: "+what, at.Sub(last.Add(w.timeout))) // after the verdict was due
			}
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
		},
	})
}

// holder is a session of the client that holds the lock on a table.
type holder struct{ what, table string }

// lockHolders opens sessions that each hold a lock and do different things.
func (w *world) lockHolders() []holder {
	w.Helper()
	holders := []holder{{"idle in transaction", "t0"}, {"busy", "t1"}, {"copy from", "t2"}, {"copy to", "t3"}, {"waiting on a lock", "t4"}, {"TLS", "t5"}}
	for _, h := range append(holders, holder{table: "contended"}) {
		agenttest.MustExec(w, w.primary, "CREATE TABLE "+h.table+" (i int)")
	}
	var apps []*app
	for _, h := range holders {
		open := w.through(portPrimary)
		if h.what == "TLS" {
			w.enableTLS(w.primary) // from now on the driver prefers it
			open = w.overTLS(portPrimary)
		}
		a := open()
		a.exec("BEGIN")
		a.exec("LOCK TABLE " + h.table)
		apps = append(apps, a)
	}
	stranger := w.openDirect(w.db2, w.primary)
	stranger.exec("BEGIN")
	stranger.exec("LOCK TABLE contended")
	// In a loop that never looks at its socket.
	apps[1].begin("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
	apps[2].copyIn("COPY t2 FROM STDIN")
	apps[3].copyOut("COPY (SELECT repeat('x', 1000), generate_series(1, 1000000000)) TO STDOUT")
	apps[4].begin("LOCK TABLE contended")
	apps[5].copyOut("COPY (SELECT repeat('x', 1000), generate_series(1, 1000000000)) TO STDOUT -- TLS")
	w.expect("all at work", func() bool {
		return agenttest.MustQuery(w, w.primary, `SELECT count(*) FROM pg_stat_activity
			WHERE client_addr = $1 AND (state = 'idle in transaction' AND query LIKE 'LOCK%'
			OR state = 'active' AND (query LIKE 'DO%' OR query LIKE 'COPY t2%' AND wait_event = 'ClientRead'
				OR query LIKE 'COPY (%' AND wait_event = 'ClientWrite' OR query LIKE 'LOCK%' AND wait_event_type = 'Lock'))`, w.addr(w.client).String())[0] == "6"
	})
	return holders
}

// noteFree notes when nobody holds the lock of a holder any more.
func (w *world) noteFree(watcher *pgx.Conn, holders []holder, free map[string]mono.Instant) {
	w.Helper()
	rows, err := watcher.Query(w.Context(), "SELECT DISTINCT relation::regclass::text FROM pg_locks WHERE relation IS NOT NULL")
	w.must(err)
	locked, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.must(err)
	at := now()
	for _, h := range holders {
		if free[h.what].IsZero() && !slices.Contains(locked, h.table) {
			free[h.what] = at
		}
	}
}

// copyIn starts a COPY that never ends: its client sends a row and then nothing.
func (a *app) copyIn(sql string) {
	r, feed := net.Pipe()
	a.w.Cleanup(func() { _ = feed.Close() })
	go func() {
		_, err := a.conn.PgConn().CopyFrom(a.w.Context(), r, sql)
		a.ends <- appEnd{at: now(), err: err}
	}()
	if _, err := feed.Write([]byte("1\n")); err != nil {
		a.w.failf("%s: %v", sql, err)
	}
}

// copyOut starts a COPY whose client stops reading: the backend blocks in send.
func (a *app) copyOut(sql string) {
	go func() {
		_, err := a.conn.PgConn().CopyTo(a.w.Context(), stuck{a.w.Context()}, sql)
		a.ends <- appEnd{at: now(), err: err}
	}()
}

// stuck is a writer that takes nothing until its context ends.
type stuck struct{ ctx context.Context }

func (s stuck) Write([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// The client host is back, with a new session and new connections, while the
// warrant for its old ones still runs: the new ones are untouched.
func TestComeback(t *testing.T) {
	prove(t, row{
		name: "comeback", with: func(s *setup) { calm(s); alone(s) }, off: dryRun,
		run: func(w *world) {
			old := w.crowd(w.through(portPrimary))
			// Stands still: the warrant cannot be done before it goes on.
			stopped := w.open(portPrimary)
			w.pause(stopped.pid)
			agenttest.MustFault(w, w.client.Cut)
			w.expect("the old backends gone", func() bool { return w.living(w.primary, old.pids()) == 0 })
			agenttest.MustFault(w, w.client.Heal)
			direct := w.crowd(w.directly(w.client, w.primary))
			w.expectMonitored()
			apps := w.crowd(w.through(portPrimary))
			if w.living(w.primary, []uint32{stopped.pid}) != 1 {
				w.failf("the warrant was over before the client was back")
			}
			w.resume(stopped.pid)
			w.expect("the last old backend gone", func() bool { return w.living(w.primary, []uint32{stopped.pid}) == 0 })
			direct.expectUntouched("new, past conmgr", w.rest())
			apps.expectUntouched("new", w.rest())
		},
	})
}

// The dead client held superuser sessions, and the agent's role may not end
// those: they are gone or named, the others are gone.
func TestSuperuser(t *testing.T) {
	prove(t, row{
		name: "superuser", off: dryRun,
		with: func(s *setup) { calm(s); alone(s); s.noAgents, s.noConmgr = true, true },
		run: func(w *world) {
			w.must(w.primary.CreateRole(w.Context(), "agent", "pg_monitor", "pg_signal_backend"))
			w.must(w.primary.CreateRole(w.Context(), "app"))
			w.agentOptions.DSN = strings.Replace(w.primary.DSN(), "user=postgres", "user=agent", 1)
			w.agent1 = w.startAgent(w.primary)
			w.cm = w.startConmgr(w.client, nil)
			w.awaitMonitored(w.cm)
			root, ordinary := w.crowd(w.through(portPrimary)), w.crowd(func() *app {
				a := w.open(portPrimary)
				a.exec("SET SESSION AUTHORIZATION app") // shown as the login role: superuser still
				return a
			})
			users := w.crowd(func() *app { return w.openAs("app", w.client, portPrimary) })
			agenttest.MustFault(w, w.client.Cut)
			w.expect("the ordinary backends gone", func() bool { return w.living(w.primary, users.pids()) == 0 })
			for _, c := range []*crowd{root, ordinary} {
				for _, pid := range c.pids() {
					w.expect("a superuser's session gone or named", func() bool {
						return w.living(w.primary, []uint32{pid}) == 0 || w.recorded("survivors", pid)
					})
				}
			}
			if left := w.living(w.primary, root.pids()); left > 0 && !w.logged(w.agent1, "sessions of lost client survived") {
				w.failf("%d superuser sessions survive and the agent's log does not say so", left)
			}
		},
	})
}

// recorded reports whether the agent's events name a backend as left by a
// warrant with an outcome.
func (w *world) recorded(outcome string, pid uint32) bool {
	for line := range strings.Lines(w.watchdogEvents(w.primary)) {
		if strings.Contains(line, `"outcome":"`+outcome+`"`) && strings.Contains(line, fmt.Sprintf(`"pid":%d,`, pid)) {
			return true
		}
	}
	return false
}
