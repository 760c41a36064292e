// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/conmgr/client"
)

// direct is an application of the client host in direct mode: to the instance by
// TLS that is verified by backend_host, with the password that stands in a file
// under the same name.
type direct struct {
	w      *world
	dialer *client.Dialer
	dsn    string
}

// named gives the instances names that nobody can resolve.
func named(s *setup) { s.conmgr["backend_host0"], s.conmgr["backend_host1"] = "'db1'", "'db2'" }

// newDirect lets the instances ask for what a direct application brings.
func (w *world) newDirect() *direct {
	w.Helper()
	const role, password = "app", "long-secret"
	agenttest.MustExec(w, w.primary, fmt.Sprintf("CREATE ROLE %s LOGIN IN ROLE pg_monitor PASSWORD '%s'; GRANT CREATE ON SCHEMA public TO %s", role, password, role))
	authorities, passwords := "", ""
	for _, p := range []*agenttest.Postgres{w.primary, w.standby} {
		if p == nil {
			continue
		}
		text, err := os.ReadFile(w.enableTLS(p))
		w.must(err)
		authorities += string(text)
		passwords += fmt.Sprintf("%s:*:*:%s:%s\n", p.Host.Name, role, password)
		w.must(p.SetHBA([]string{"hostssl all " + role + " all scram-sha-256", "host all " + role + " all reject",
			"host all all all trust", "host replication all all trust"}))
		w.must(p.Reload())
	}
	dir := w.TempDir()
	rootcert, passfile := filepath.Join(dir, "root.crt"), filepath.Join(dir, "pgpass")
	w.must(os.WriteFile(rootcert, []byte(authorities), 0o600))
	w.must(os.WriteFile(passfile, []byte(passwords), 0o600))
	return &direct{
		w: w, dialer: &client.Dialer{DialFunc: w.client.Dial},
		dsn: fmt.Sprintf("host=localhost port=%d user=%s dbname=postgres sslmode=verify-full sslrootcert=%s passfile=%s connect_timeout=5 conmgr_user=nobody",
			portConsole, role, rootcert, passfile),
	}
}

// connect connects to an instance with an attribute.
func (d *direct) connect(target string) (*pgx.Conn, error) {
	cfg, err := client.ParseConfig(d.dsn + " target_session_attrs=" + target)
	d.w.must(err)
	cfg.DialFunc = d.w.client.Dial
	return d.dialer.ConnectConfig(d.w.Context(), cfg)
}

// open is connect for a row that promises it.
func (d *direct) open(target string) *app {
	d.w.Helper()
	var conn *pgx.Conn
	d.w.expect("a direct connection to "+target, func() (ok bool) {
		var err error
		conn, err = d.connect(target)
		return err == nil
	})
	return d.w.adopt(conn)
}

// pool makes a pool of two connections.
func (d *direct) pool(target string) *pgxpool.Pool {
	d.w.Helper()
	cfg, err := client.ParsePoolConfig(d.dsn + " pool_max_conns=2 target_session_attrs=" + target)
	d.w.must(err)
	cfg.ConnConfig.DialFunc = d.w.client.Dial
	pool, err := d.dialer.NewPoolWithConfig(d.w.Context(), cfg)
	d.w.must(err)
	d.w.Cleanup(pool.Close)
	return pool
}

// watch waits for the end of an idle connection; see app.ended.
func (a *app) watch() {
	a.async(func(ctx context.Context) error {
		watch := client.WatchOf(a.conn.PgConn())
		select {
		case <-watch.Done():
			return watch.Err()
		case <-ctx.Done():
			return nil
		}
	})
}

// fault returns what ended a direct application; the row fails when that is not
// a fault of this kind.
func (e appEnd) fault(w *world, what, reason string) *client.FaultError {
	w.Helper()
	f, ok := errors.AsType[*client.FaultError](e.err)
	if !ok || f.Reason != reason {
		w.failf("%s: ended with %v: expected a fault, reason %s", what, e.err, reason)
	}
	return f
}

// landedOn is the host of the instance that a connection of a pool leads to.
func landedOn(ctx context.Context, pool *pgxpool.Pool) string {
	ctx, cancel := context.WithTimeout(ctx, oneConnect)
	defer cancel()
	c, err := pool.Acquire(ctx)
	if err != nil {
		return ""
	}
	defer c.Release()
	if c.Ping(ctx) != nil {
		return ""
	}
	return c.Conn().Config().Host
}

// The database host vanishes: direct applications get their error at
// heartbeat_timeout, whatever they were doing, and pools are rid of what led there.
func TestDirectSilentServer(t *testing.T) {
	prove(t, row{
		name: "direct, silent-server", fastOnly: true, with: named,
		off: func(s *setup) { s.timeout = 9 * time.Minute }, // as good as no heartbeat
		run: func(w *world) {
			d := w.newDirect()
			apps := map[string]*app{}
			for _, what := range []string{"blocked read", "blocked by arguments", "idle in transaction", "idle", "blocked write"} {
				apps[what] = d.open("primary")
			}
			apps["blocked read"].begin("SELECT pg_sleep(3600)")
			apps["blocked by arguments"].async(func(ctx context.Context) error {
				_, err := apps["blocked by arguments"].conn.Exec(ctx, "SELECT pg_sleep($1)", 3600)
				return err
			})
			apps["idle in transaction"].exec("BEGIN")
			apps["idle in transaction"].watch()
			apps["idle"].watch()
			w.stick(apps["blocked write"])
			pool := d.pool("primary")
			member, err := pool.Acquire(w.Context())
			w.must(err)
			member.Release()

			agenttest.MustFault(w, w.db1.Cut)
			for what, a := range apps {
				end := a.ended(what)
				if f := end.fault(w, what, "timeout"); f.Instance.Host != "db1" || f.Silence < w.timeout {
					w.failf("%s: fault of %s, silent for %v", what, f.Instance, f.Silence)
				}
				w.expectVerdict(what, w.lastFrame(w.client, w.db1), end.at, w.timeout)
			}
			w.expect("the pool without the lost connection", func() bool { return pool.Stat().TotalConns() == 0 })
			_, err = w.standby.Promote(w.Context())
			w.must(err)
			promoted := now()
			if got := d.open("primary").value("SELECT host(inet_server_addr())"); got != w.addr(w.db2).String() {
				w.failf("connected to %s: expected the promoted %s", got, w.addr(w.db2))
			}
			w.measure("promotion to connect", now().Sub(promoted))
			w.expect("the pool leads to the promoted", func() bool { return landedOn(w.Context(), pool) == "db2" })
		},
	})
}

// stick makes an application wait for room in its socket: it copies into a table
// that is locked.
func (w *world) stick(a *app) {
	w.Helper()
	a.exec("CREATE TABLE lines (line text)")
	blocker := w.openDirect(w.db1, w.primary)
	blocker.exec("BEGIN; LOCK TABLE lines")
	a.pour("lines")
	w.expect("the writer waits for the lock", func() bool {
		return agenttest.MustQuery(w, w.primary, fmt.Sprintf("SELECT count(*)::text FROM pg_locks WHERE pid = %d AND NOT granted", a.pid))[0] == "1"
	})
}

// A standby is promoted: who asked for a standby is told, who did not goes on, and
// a pool for the primary finds it.
func TestDirectPromote(t *testing.T) {
	prove(t, row{
		name: "direct, promote", v4Only: true, tcpOnly: true, fastOnly: true,
		with: func(s *setup) { named(s); calm(s); s.conmgr["load_balance"] = "first" },
		off:  func(s *setup) { s.conmgr["close_on_role_change"] = "off" },
		run: func(w *world) {
			d := w.newDirect()
			pool := d.pool("read-write")
			w.expect("the pool leads to the primary", func() bool { return landedOn(w.Context(), pool) == "db1" })
			_, err := w.primary.Kill9(w.Context())
			w.must(err)
			standby := d.open("standby")
			standby.watch()
			indifferent := d.open("any")
			if _, err := d.connect("primary"); !errors.Is(err, client.ErrNoInstance) {
				w.failf("connect to a primary that is gone: %v", err)
			}
			promoted, err := w.standby.Promote(w.Context())
			w.must(err)
			end := standby.ended("session of a standby")
			end.fault(w, "session of a standby", "role change")
			w.measure("session of a standby", end.at.Sub(promoted.Before))
			w.expect("the pool leads to the promoted", func() bool { return landedOn(w.Context(), pool) == "db2" })
			if got := indifferent.value("SELECT pg_backend_pid()::text"); got != fmt.Sprint(indifferent.pid) {
				w.failf("another backend answers: %s for %d", got, indifferent.pid)
			}
		},
	})
}

// cm_ctl restart: direct applications go on, and are watched by the new conmgr,
// whose death they are told.
func TestDirectConmgrRestart(t *testing.T) {
	prove(t, row{
		name: "direct, conmgr-restart", v4Only: true, tcpOnly: true, fastOnly: true,
		with: func(s *setup) { named(s); calm(s); alone(s); s.noConmgr = true },
		off:  func(s *setup) { s.stopMode = "fast" },
		run: func(w *world) {
			w.cm = w.newConmgr(w.client, nil)
			w.mustCtl(w.cm, "start")
			d := w.newDirect()
			busy, idle := d.open("primary"), d.open("primary")
			busy.begin("SELECT pg_sleep(3600)")
			idle.watch()
			if w.stopMode == "" {
				w.mustCtl(w.cm, "restart")
			} else {
				w.mustCtl(w.cm, "stop", "-m", w.stopMode)
				w.mustCtl(w.cm, "start")
			}
			w.expect("both are bound again", func() bool {
				n := 0
				for _, a := range w.show(w.cm, "SHOW APPLICATIONS") {
					if a["state"] == "bound" && a["kind"] == "console" {
						n++
					}
				}
				return n == 2
			})
			w.expectNever("an application was disturbed", policyWait, func() bool { return busy.hasEnded() || idle.hasEnded() })
			killed := now()
			w.killConmgr()
			for what, a := range map[string]*app{"blocked read": busy, "idle": idle} {
				end := a.ended(what)
				w.measure(what, end.at.Sub(killed))
				if !errors.Is(end.err, client.ErrConmgrLost) {
					w.failf("%s: ended with %v: expected that conmgr is lost", what, end.err)
				}
			}
		},
	})
}
