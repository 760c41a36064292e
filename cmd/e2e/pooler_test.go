// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// portPooler is PgBouncer's.
const portPooler = 6432

// A client of a pooler on the database host vanishes in a transaction: its session
// is the pooler's for PostgreSQL, and its lock is free only when the pooler sees the
// end of its own client's socket (watchdog.ports).
func TestPooler(t *testing.T) {
	agenttest.NeedTool(t, "pgbouncer")
	prove(t, row{
		name: "pooler", fastOnly: true,
		with: func(s *setup) { alone(s); s.agents["watchdog.ports"] = fmt.Sprint(portPooler) },
		off:  func(s *setup) { delete(s.agents, "watchdog.ports") },
		run: func(w *world) {
			w.startPooler(w.db1, w.primary)
			holder, other := w.openPooled(w.client), w.openPooled(w.db2)
			agenttest.MustExec(w, w.primary, "CREATE TABLE held ()")
			holder.exec("BEGIN; LOCK TABLE held")
			other.exec("BEGIN")
			waiter := w.openDirect(w.db1, w.primary)
			waiter.exec("BEGIN")
			waiter.begin("LOCK TABLE held")
			agenttest.MustFault(w, w.client.Cut)
			if end := waiter.ended("the waiter for the lock"); end.err != nil {
				w.failf("the waiter for the lock ended with %v", end.err)
			}
			w.expectVerdict("lock free", w.lastFrame(w.db1, w.client), now(), w.timeout)
			w.expect("the pooler's session ended", func() bool { return w.living(w.primary, []uint32{holder.pid}) == 0 })
			other.exec("COMMIT")
		},
	})
}

// startPooler starts PgBouncer beside an instance.
func (w *world) startPooler(h *agenttest.Host, p *agenttest.Postgres) {
	w.Helper()
	dir, err := h.Mkdir("postgres", "pooler")
	w.must(err)
	config := filepath.Join(dir, "pgbouncer.ini")
	w.must(os.WriteFile(config, fmt.Appendf(nil, `[databases]
postgres = host=%s port=%d user=postgres
[pgbouncer]
listen_addr = *
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = session
`, p.SocketDir, p.Port, portPooler), 0o644))
	_, err = h.Start(agenttest.Spec{Name: "pgbouncer", Path: "pgbouncer", Args: []string{config}, User: "postgres"})
	w.must(err)
}

// openPooled connects from a host through the pooler on db1.
func (w *world) openPooled(from *agenttest.Host) *app {
	w.Helper()
	var a *app
	agenttest.Eventually(w, generous, "the pooler serves", func() bool {
		conn, err := w.connect(from, w.addr(w.db1).String(), portPooler)
		if err != nil {
			return false
		}
		a = w.adopt(conn)
		return true
	})
	w.must(a.conn.QueryRow(w.Context(), "SELECT pg_backend_pid()").Scan(&a.pid))
	return a
}
