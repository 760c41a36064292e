// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The database host vanishes: applications get their error at heartbeat_timeout,
// whatever they were doing.
func TestSilentServer(t *testing.T) {
	prove(t, row{
		name: "silent-server",
		off:  func(s *setup) { s.timeout = 9 * time.Minute }, // as good as no heartbeat
		run: func(w *world) {
			reader, idle := w.open(portPrimary), w.open(portPrimary)
			inTransaction := w.open(portPrimary)
			inTransaction.exec("BEGIN")
			inTransaction.idle()
			reader.begin("SELECT pg_sleep(3600)")
			idle.idle()
			proxied, idleProxied := w.open(portConsole), w.open(portConsole)
			proxied.begin("SELECT pg_sleep(3600)")
			idleProxied.idle()
			watcher := w.target("primary")
			writer := w.stuckWriter()
			agenttest.MustFault(w, w.db1.Cut)
			for _, a := range []struct {
				what string
				app  *app
			}{{"blocked read", reader}, {"idle", idle}, {"idle in transaction", inTransaction}, {"blocked write", writer},
				{"proxy mode, blocked read", proxied}, {"proxy mode, idle", idleProxied}} {
				end := a.app.ended(a.what)
				if end.err == nil {
					w.failf("%s: ended without an error", a.what)
				}
				w.expectVerdict(a.what, w.lastFrame(w.client, w.db1), end.at, w.timeout)
			}
			w.expectVerdict("console", w.lastFrame(w.client, w.db1), watcher.ended("console").at, w.timeout)
			_, err := w.standby.Promote(w.Context())
			w.must(err)
			promoted := now()
			if got := w.open(portPrimary).value("SELECT host(inet_server_addr())"); got != w.addr(w.db2).String() {
				w.failf("connected to %s: expected the promoted %s", got, w.addr(w.db2))
			}
			w.measure("promotion to connect", now().Sub(promoted))
			if got := w.open(portConsole).value("SELECT host(inet_server_addr())"); got != w.addr(w.db2).String() {
				w.failf("connected to %s in proxy mode: expected the promoted %s", got, w.addr(w.db2))
			}
		},
	})
}

// stuckWriter is an application that waits for room in its socket: it copies
// into a table that is locked.
func (w *world) stuckWriter() *app {
	w.Helper()
	agenttest.MustExec(w, w.primary, "CREATE TABLE lines (line text)")
	blocker := w.openDirect(w.db1, w.primary)
	blocker.exec("BEGIN; LOCK TABLE lines")
	writer := w.open(portPrimary)
	writer.pour("lines")
	w.expect("the writer waits for the lock", func() bool {
		return agenttest.MustQuery(w, w.primary, fmt.Sprintf("SELECT count(*)::text FROM pg_locks WHERE pid = %d AND NOT granted", writer.pid))[0] == "1"
	})
	return writer
}
