// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// mustSession opens a database session from a port of a host; 0 is any port.
func mustSession(t *testing.T, from *agenttest.Host, addr netip.Addr, port uint16, role string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(fmt.Sprintf("host=%v port=5432 user=%s dbname=postgres sslmode=disable", addr, role))
	if err != nil {
		t.Fatal(err)
	}
	local := from.Addr4
	if addr.Is6() {
		local = from.Addr6
	}
	config.DialFunc = func(ctx context.Context, network, to string) (net.Conn, error) {
		d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, port)), Control: reuseAddress}
		return from.DialWith(ctx, d, network, to)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// reuseAddress lets two sockets have the same port, towards two servers.
func reuseAddress(_, _ string, c syscall.RawConn) (err error) {
	controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(controlled, err)
}

func pidOf(c *pgx.Conn) int32 { return int32(c.PgConn().PID()) }

// Each socket is joined with the session that it belongs to, also when another
// cluster has a session of the same client port on the same port of its own.
func TestSocketsJoined(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	second := netip.MustParseAddr("10.99.0.200")
	mustTool(t, db, "ip", "address", "add", second.String()+"/24", "dev", "eth0")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{Listen: db.Addr4.String() + "," + db.Addr6.String()})
	other := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{Name: "other", Listen: second.String()})
	mustTool(t, client, "ip", "neighbour", "add", second.String(), "lladdr", "02:99:00:00:00:02", "dev", "eth0", "nud", "permanent")
	if err := pg.CreateRole(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	four, six := mustSession(t, client, db.Addr4, 45000, "app"), mustSession(t, client, db.Addr6, 0, "postgres")
	twin := mustSession(t, client, second, 45000, "postgres")
	if _, err := four.Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Connect(t.Context()); err != nil { // a Unix socket, which is not joined with anything
		t.Fatal(err)
	}
	for _, o := range mustList(t, db, "--port", "5432", "--dsn", pg.DSN()) {
		switch b := o.Backend; {
		case o.LocalAddress == second:
			if b != nil {
				t.Errorf("the other cluster's session %d was joined with %+v", pidOf(twin), *b)
			}
		case b == nil:
			t.Errorf("no session for %v from %v", o.LocalAddress, *o.PeerAddress)
		case o.LocalAddress == db.Addr4:
			if b.PID != pidOf(four) || *b.User != "app" || *b.Database != "postgres" || *b.State != "idle in transaction" ||
				b.QueryStart == nil || *b.Type != "client backend" || o.Processes[0].PID != int(b.PID) {
				t.Errorf("session %+v", *b)
			}
		case b.PID != pidOf(six) || *b.User != "postgres":
			t.Errorf("session %+v", *b)
		}
	}
	if got := mustList(t, db, "--port", "5432", "--dsn", other.DSN(), "--local", second.String()); got[0].Backend == nil || got[0].Backend.PID != pidOf(twin) {
		t.Errorf("the other cluster's own view: %+v", got)
	}

	s := newSession(80, "")
	s.mustIn(t, db, 0, "sockets", "--port", "5432", "--peer", client.Addr4.String(), "--local", db.Addr4.String(), "--dsn", pg.DSN())
	if want := fmt.Sprintf("%d  app   idle in transaction  ", pidOf(four)); !strings.Contains(s.out.String(), want) {
		t.Errorf("80 columns: no %q in\n%s", want, s.out)
	}
	checkWidth(t, "80", s.out.String(), 80)
}

// A role that sees nothing is told so, and a database that is away is an error.
func TestSocketsJoinedBlindly(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{})
	if err := pg.CreateRole(t.Context(), "blind"); err != nil {
		t.Fatal(err)
	}
	mustSession(t, client, db.Addr4, 0, "postgres")
	s := newSession(0, "")
	s.mustIn(t, db, 0, "sockets", "--port", "5432", "--json", "--dsn", strings.Replace(pg.DSN(), "user=postgres", "user=blind", 1))
	if got := mustObjects(t, s.out.String()); len(got) != 1 || got[0].Backend != nil {
		t.Errorf("sockets %+v", got)
	}
	if want := "agentctl: note: the role of --dsn sees its own sessions only: GRANT pg_read_all_stats TO it\n"; s.errs.String() != want {
		t.Errorf("stderr %q", s.errs)
	}
	s = newSession(0, "")
	s.mustIn(t, db, 1, "sockets", "--dsn", "host=/nonexistent user=postgres")
	if got := s.errs.String(); !strings.HasPrefix(got, "agentctl: error: database: ") || strings.Count(got, "\n") != 1 {
		t.Errorf("stderr %q", got)
	}
}

// A database that goes away does not end a watch, and is asked again.
func TestWatchOutlivesTheDatabase(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{})
	backendOf := func(c *pgx.Conn) string { return fmt.Sprintf(`"backend":{"pid":%d,`, pidOf(c)) }
	first := backendOf(mustSession(t, client, db.Addr4, 0, "postgres"))
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(0, "")
	ended := make(chan int, 1)
	go func() {
		_ = db.Do(func() error {
			ended <- s.run(ctx, "sockets", "--json", "--port", "5432", "--watch=100ms", "--dsn", pg.DSN())
			return nil
		})
	}()
	agenttest.Eventually(t, limit, "the first session", func() bool { return strings.Contains(s.out.String(), first) })
	if err := pg.Stop(t.Context(), agenttest.Fast); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, limit, "a note", func() bool { return strings.Contains(s.errs.String(), "agentctl: note: database: ") })
	if err := pg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := backendOf(mustSession(t, client, db.Addr4, 0, "postgres"))
	agenttest.Eventually(t, limit, "the new session", func() bool { return strings.Contains(s.out.String(), want) })
	cancel()
	if exit := <-ended; exit != 0 {
		t.Errorf("exit %d, stderr %s", exit, s.errs)
	}
}

// The session of a destroyed socket goes on until it looks at the socket: the
// sockets are destroyed, no backend is terminated.
func TestKillLeavesBackends(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{})
	// psql does not send a cancel request when it loses the connection.
	psql := client.Command(t.Context(), pg.Program("psql"), "-h", db.Addr4.String(), "-U", "postgres", "-c", "SELECT pg_sleep(3600)")
	ended := make(chan error, 1)
	go func() { ended <- psql.Run() }()
	sleeping := func() []string {
		return agenttest.MustQuery(t, pg, "SELECT pid FROM pg_stat_activity WHERE client_port > 0 AND wait_event = 'PgSleep'")
	}
	agenttest.Eventually(t, limit, "a busy session", func() bool { return len(sleeping()) == 1 })
	busy := sleeping()
	s := newSession(200, "")
	s.mustIn(t, db, 0, "sockets", "kill", "--peer", client.Addr4.String(), "--port", "5432", "--dsn", pg.DSN(), "--yes")
	if out := s.out.String(); !strings.Contains(out, "  "+busy[0]+"  ") || !strings.HasSuffix(out, "1 destroyed\n") {
		t.Errorf("stdout:\n%s", out)
	}
	if err := <-ended; err == nil {
		t.Error("the client's query ended well")
	}
	if got := sleeping(); !slices.Equal(got, busy) {
		t.Errorf("backends %q: want %q, untouched", got, busy)
	}
}
