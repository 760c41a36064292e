// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// mark is a port's mark that somebody holds who never answers.
type mark struct {
	mu    sync.Mutex // guards the following
	conns []net.Conn
	bytes int
}

// mustMark holds the mark of a port until the test ends.
func mustMark(t testing.TB, port uint16) *mark {
	t.Helper()
	l, err := net.Listen("unix", fmt.Sprintf("@pgconmgr:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	m := &mark{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns = append(m.conns, conn)
			m.mu.Unlock()
			running.Go(func() { m.swallow(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		m.mu.Lock()
		for _, c := range m.conns {
			_ = c.Close()
		}
		m.mu.Unlock()
		running.Wait()
	})
	return m
}

func (m *mark) swallow(conn net.Conn) {
	n, _ := io.Copy(io.Discard, conn)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes += int(n)
}

func stranger(net.Conn) (uint32, error) { return uint32(os.Geteuid()) + 12345, nil }

// A postmaster without a mark gets what pgx sends, and nothing else.
func TestPostmaster(t *testing.T) {
	p := mustPostgres(t, nil)
	dsn := fmt.Sprintf("host=localhost port=%d %s conmgr_user=nobody", p.port(), plain)
	conn := mustConnect(t, &std, dsn)
	if WatchOf(conn.PgConn()) != nil {
		t.Error("the connection is watched")
	}
	if n := p.count(accepted); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	straight, err := pgx.Connect(t.Context(), strings.ReplaceAll(dsn, "conmgr_user=nobody", ""))
	if err != nil {
		t.Fatal(err)
	}
	closeConn(straight)
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, b := fmt.Sprint(p.startups[0]), fmt.Sprint(p.startups[1]); a != b {
		t.Errorf("startup packet %s, want that of pgx, %s", a, b)
	}
}

// A mark that a stranger holds is as good as none: he is asked nothing, and keeps
// nobody from the postmaster.
func TestStrangersMark(t *testing.T) {
	p := mustPostgres(t, nil)
	m := mustMark(t, p.port())
	d := &Dialer{peerUID: stranger}
	dsn := fmt.Sprintf("host=localhost port=%d %s ", p.port(), plain)
	conn := mustConnect(t, d, dsn)
	if WatchOf(conn.PgConn()) != nil {
		t.Error("a stranger watches the connection")
	}
	before := p.count(accepted)
	_, err := d.Connect(t.Context(), dsn+fmt.Sprintf("conmgr=localhost:%d", p.port()))
	if err == nil || !errors.Is(err, errNoMark) || !strings.Contains(err.Error(), "conmgr_user") {
		t.Errorf("named conmgr behind a stranger's mark: %v", err)
	}
	if n := p.count(accepted); n != before {
		t.Error("a named conmgr was taken for a postmaster")
	}
	agenttest.Eventually(t, patience, "both looked", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.conns) == 2 })
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes != 0 {
		t.Errorf("a stranger was sent %d bytes", m.bytes)
	}
}

// conmgr may run as another user, when that one is named.
func TestTrustedUser(t *testing.T) {
	f := mustFleet(t, instanceOf(0, mustPostgres(t, nil)))
	uid, _ := stranger(nil)
	for _, tt := range []struct {
		d    *Dialer
		more string
		ok   bool
	}{
		{&Dialer{peerUID: stranger}, fmt.Sprintf("conmgr_user=%d", uid), true},
		{&Dialer{peerUID: stranger, User: fmt.Sprint(uid)}, "", true},
		{&Dialer{peerUID: stranger, User: fmt.Sprint(uid)}, "conmgr_user=root", false},
		{&Dialer{peerUID: stranger}, "", false},
		{&Dialer{peerUID: stranger}, "conmgr_user=no-such-user", false},
		{&Dialer{peerUID: func(net.Conn) (uint32, error) { return 0, nil }}, "", true},
		{&Dialer{peerUID: func(net.Conn) (uint32, error) { return 0, errors.New("unknown") }}, "", false},
	} {
		// The port of a conmgr that is not trusted is a postmaster: proxy mode answers.
		conn, err := tt.d.Connect(t.Context(), f.dsn(tt.more))
		if err != nil {
			t.Errorf("%q: %v", tt.more, err)
			continue
		}
		if watched := WatchOf(conn.PgConn()) != nil; watched != tt.ok {
			t.Errorf("%q: watched %v, want %v", tt.more, watched, tt.ok)
		}
		closeConn(conn)
	}
}

// A conmgr of another host is one only when it is named.
func TestRemote(t *testing.T) {
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	var dialled []string
	d := &Dialer{DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled = append(dialled, network+" "+address)
		return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
	}}
	dsn := fmt.Sprintf("host=gateway port=%d %s connect_timeout=1 ", f.port, plain)
	for _, named := range []string{fmt.Sprintf("gateway:%d", f.port), "gateway"} {
		conn, err := d.Connect(t.Context(), dsn+"conmgr="+named)
		if err != nil {
			t.Fatal(err)
		}
		if WatchOf(conn.PgConn()) == nil {
			t.Error("the connection is not watched")
		}
		if len(p.startup()) != 2 {
			t.Errorf("the instance was sent %v, want user and database", p.startup())
		}
		closeConn(conn)
	}
	if want := fmt.Sprintf("tcp gateway:%d", f.port); slices.ContainsFunc(dialled, func(s string) bool { return s != want }) {
		t.Errorf("dialled %q, want only %q", dialled, want)
	}
	n := len(dialled)
	cfg, err := ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return nil, errors.New("taken for a postmaster") }
	if _, err := d.ConnectConfig(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "taken for a postmaster") {
		t.Errorf("a host that is not named: %v", err)
	}
	if len(dialled) != n {
		t.Errorf("dialled %q for a host that is not named", dialled[n:])
	}
}

// Mistakes in what is named are told; off looks for nothing; the console's own
// database is not routed.
func TestNamed(t *testing.T) {
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	if _, err := Connect(t.Context(), f.dsn("conmgr=elsewhere:1")); err == nil || !strings.Contains(err.Error(), `"elsewhere:1" is not in the host list`) {
		t.Errorf("a name that is not in the list: %v", err)
	}
	if _, err := Connect(t.Context(), fmt.Sprintf("host=localhost port=%d conmgr=localhost %s", p.port(), plain)); !errors.Is(err, errNoMark) {
		t.Errorf("a named conmgr that is not there: %v", err)
	}
	if p.count(accepted) != 0 {
		t.Error("a named conmgr was taken for a postmaster")
	}
	conn, err := Connect(t.Context(), strings.ReplaceAll(f.dsn(), "dbname=app", "dbname=conmgr"))
	if err != nil {
		t.Fatal(err)
	}
	var version string
	if err := conn.QueryRow(t.Context(), "SHOW VERSION").Scan(&version); err != nil || WatchOf(conn.PgConn()) != nil {
		t.Errorf("the console: %v", err)
	}
	closeConn(conn)
	mustMark(t, p.port())
	conn = mustConnect(t, &std, fmt.Sprintf("host=localhost port=%d conmgr=off %s", p.port(), plain))
	if WatchOf(conn.PgConn()) != nil {
		t.Error("conmgr=off, and watched")
	}
}
