// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scram makes a role that has to prove its password.
func (c *cluster) scram(t *testing.T) {
	t.Helper()
	hba := filepath.Join(c.dir, "data", "pg_hba.conf")
	text := "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(hba, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := mustPgx(t, c.where("postgres", "sslmode=disable"))
	mustExec(t, conn, "SET password_encryption = 'scram-sha-256'")
	mustExec(t, conn, "CREATE ROLE app LOGIN PASSWORD 'secret'")
	mustExec(t, conn, "SELECT pg_reload_conf()")
	eventually(t, "the password is asked for", func() bool {
		_, err := pgx.Connect(t.Context(), c.where("app", "password=wrong"))
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "28P01"
	})
}

// where is a connection string for the cluster itself.
func (c *cluster) where(user, more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=%s %s", c.at.Port(), user, more)
}

func mustPgx(t *testing.T, where string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustValue(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	var v string
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Unmodified clients through proxy mode to a real instance, over TLS and in clear
// text: passwords (scram-sha-256, whose channel binding the instance offers over
// TLS), options, bulk data, cancel, and a fault under a blocked query.
func TestProxyPostgreSQL(t *testing.T) {
	c := mustCluster(t)
	c.scram(t)
	crt, err := os.ReadFile(filepath.Join(c.dir, "crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(crt)
	for _, mode := range []SSLMode{SSLDisable, SSLPrefer, SSLVerifyFull} {
		t.Run(mode.String(), func(t *testing.T) {
			f := mustProxy(t, func(o *ServerOptions) {
				if o.ProxySSLMode = mode; mode == SSLVerifyFull {
					o.ProxyRoots = roots
				}
			}, c.at)
			only := f.picture.View().Instances[0]
			only.Host = "localhost" // as in the certificate
			f.picture.set(only)
			testProxyPostgreSQL(t, f, c, mode != SSLDisable)
		})
	}
}

func testProxyPostgreSQL(t *testing.T, f *fixture, c *cluster, encrypted bool) {
	where := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=app password=secret", f.Port())
	conn := mustPgx(t, where+" options='-c conmgr.target_session_attrs=any -c geqo=off'")
	if got, want := mustValue(t, conn, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), fmt.Sprint(encrypted); got != want {
		t.Errorf("TLS to the instance: %s, want %s", got, want)
	}
	if got := mustValue(t, conn, "SHOW geqo") + mustValue(t, conn, "SELECT coalesce(current_setting('conmgr.target_session_attrs', true), 'unknown')"); got != "offunknown" {
		t.Errorf("settings of the session: %s", got)
	}
	testCancel(t, mustPgx(t, where))

	t.Setenv("PGPASSWORD", "secret")
	got := psql(t, "localhost", f.Port(), "postgres", "-t", "-c", "SELECT 6*7", "-c", `\conninfo`)
	if !strings.HasPrefix(got, "42\n") {
		t.Errorf("psql printed %q", got)
	}
	if got = psql(t, "localhost", f.Port(), "dbname=postgres channel_binding=require", "-c", "SELECT 1"); !strings.Contains(got, "channel binding required") {
		t.Errorf("psql with channel_binding=require printed %q", got)
	}
	super := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=postgres", f.Port())
	const rows = 50_000
	file := filepath.Join(c.dir, "rows")
	for _, sql := range []string{
		"CREATE TEMP TABLE unused (); DROP TABLE IF EXISTS p; CREATE TABLE p (n int, t text)",
		fmt.Sprintf(`INSERT INTO p SELECT g, repeat('x', 50) FROM generate_series(1, %d) g`, rows),
		`\copy p TO '` + file + `'`, `\copy p FROM '` + file + `'`,
	} {
		c.mustRun(t, "psql", "-XAtqc", sql, super)
	}
	if got, want := c.mustRun(t, "psql", "-XAtc", "SELECT count(*), sum(n)::bigint FROM p", super), fmt.Sprintf("%d|%d\n", 2*rows, int64(rows)*(rows+1)); got != want {
		t.Errorf("after COPY: %q, want %q", got, want)
	}
	_ = conn.Close(t.Context())
	eventually(t, "all have gone", func() bool { return f.Apps().Bound(0) <= 1 })
	f.dropAll(t)
	testBlockedQuery(t, f, where)
}

// dropAll ends what is bound, so that the next one is the only one.
func (f *fixture) dropAll(t *testing.T) {
	t.Helper()
	f.Apps().Fault(Fault{Index: 0, Reason: "test", At: f.picture.View().At})
	eventually(t, "nobody is left", func() bool { return f.Apps().Count() == 0 })
	f.picture.set(f.picture.View().Instances...)
}

// testCancel cancels a query that would take a minute, and only that.
func testCancel(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	ended := make(chan error, 1)
	begun := time.Now()
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_sleep(60)")
		ended <- err
	}()
	for waiting := true; waiting; { // it may come before the query
		if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "57014" {
				t.Errorf("the cancelled query: %v, want 57014", err)
			}
			waiting = false
		case <-time.After(20 * time.Millisecond):
		}
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("cancelled after %s", took)
	}
	if got := mustValue(t, conn, "SELECT 'alive'"); got != "alive" {
		t.Errorf("the session after its query was cancelled: %q", got)
	}
}
