// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Conmgrs and postmasters in any order are tried in this order.
func TestLists(t *testing.T) {
	ours, theirs := mustPostgres(t, nil), mustPostgres(t, nil)
	slave := mustPostgres(t, func(p *postgres) { p.standby = true })
	gone := instanceOf(0, ours)
	gone.Port = agenttest.FreePort(t)
	ports := map[string]uint16{
		"knows-primary": mustFleet(t, instanceOf(1, ours)).port,
		"knows-standby": mustFleet(t, instanceOf(2, slave)).port,
		"knows-dead":    mustFleet(t, gone).port,
		"first-dead":    mustFleet(t, gone, instanceOf(3, ours)).port,
		"primary":       theirs.port(),
		"standby":       slave.port(),
		"dead":          agenttest.FreePort(t),
	}
	for _, tt := range []struct {
		list, target string
		want         int // number of the instance by a conmgr; -1 the postmaster, -2 nothing
	}{
		{"knows-primary", "primary", 1},
		{"knows-standby knows-primary", "primary", 1},
		{"knows-primary knows-standby", "standby", 2},
		{"primary knows-primary", "primary", -1},
		{"knows-primary primary", "primary", 1},
		{"dead knows-primary", "read-write", 1},
		{"standby knows-primary", "primary", 1},
		{"knows-standby primary", "primary", -1},
		{"knows-dead primary", "primary", -1},
		{"knows-dead knows-primary", "primary", 1},
		{"knows-dead dead knows-standby primary", "primary", -1},
		{"first-dead", "any", 3},
		{"knows-primary standby", "prefer-standby", -1},
		{"knows-primary knows-standby", "prefer-standby", 2},
		{"knows-primary dead", "prefer-standby", 1},
		{"knows-standby", "primary", -2},
		{"knows-standby standby", "primary", -2},
	} {
		t.Run(strings.ReplaceAll(tt.list+" for "+tt.target, " ", "-"), func(t *testing.T) {
			var hosts, list []string
			for i, name := range strings.Fields(tt.list) {
				hosts = append(hosts, []string{"localhost", "127.0.0.1"}[i%2])
				list = append(list, fmt.Sprint(ports[name]))
			}
			conn, err := Connect(t.Context(), fmt.Sprintf("host=%s port=%s %s target_session_attrs=%s",
				strings.Join(hosts, ","), strings.Join(list, ","), plain, tt.target))
			got := -2
			if err == nil {
				defer closeConn(conn)
				got = -1
				if w := WatchOf(conn.PgConn()); w != nil {
					got = w.Instance().Number
				}
			}
			if got != tt.want {
				t.Errorf("reached %d, want %d: %v", got, tt.want, err)
			}
			if tt.want == -2 && (!errors.Is(err, ErrNoInstance) || !strings.Contains(err.Error(), "2 db2:")) {
				t.Errorf("error is %v, want the state of each instance", err)
			}
		})
	}
}

// A session is bound to the instance that was reached, not to the best one that
// was not.
func TestSecondInstance(t *testing.T) {
	p := mustPostgres(t, nil)
	gone := instanceOf(0, p)
	gone.Port = agenttest.FreePort(t)
	f := mustFleet(t, gone, instanceOf(1, p))
	conn := mustConnect(t, &std, f.dsn())
	agenttest.Eventually(t, patience, "bound to the second", func() bool {
		return f.server.Apps().Bound(0) == 0 && f.server.Apps().Bound(1) == 1
	})
	f.lose(0, "down")
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the fault of another instance: %v", err)
	}
	f.lose(1, "down")
	<-WatchOf(conn.PgConn()).Done()
}

// One instance may stand in a list as what a conmgr offers and as a postmaster.
func TestInstanceTwice(t *testing.T) {
	p := mustPostgres(t, nil)
	in := instanceOf(0, p)
	in.Host = "127.0.0.1"
	f := mustFleet(t, in)
	cfg, err := ParseConfig(fmt.Sprintf("host=localhost,127.0.0.1 port=%d,%d %s", f.port, p.port(), plain))
	if err != nil {
		t.Fatal(err)
	}
	if err := BeforeConnect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	connect := func() *Watch {
		t.Helper()
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closeConn(conn) })
		return WatchOf(conn.PgConn())
	}
	if connect() == nil {
		t.Error("conmgr stands first, but the connection is not watched")
	}
	f.set() // meanwhile conmgr has lost all
	if w := connect(); w != nil {
		t.Errorf("watched as %v, of which conmgr knows nothing", w.Instance())
	}
}

// conmgr has connect_timeout for its answer, but little time behind a destination
// that can be tried, and what it takes is missing for the instance.
func TestTimeouts(t *testing.T) {
	f := mustFleet(t, instanceOf(0, mustPostgres(t, nil)))
	for _, tt := range []struct {
		name, list, timeout string
		least, most         time.Duration // for the answer
	}{
		{"alone", "localhost", "2", 500 * time.Millisecond, 2 * time.Second},
		{"without a timeout", "localhost", "0", 2500 * time.Millisecond, askTime},
		{"behind a postmaster", "192.0.2.1,localhost", "2", 0, askTimeBehind},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var given []time.Duration
			d := &Dialer{DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
				deadline, _ := ctx.Deadline()
				given = append(given, time.Until(deadline))
				<-time.After(50 * time.Millisecond)
				return new(net.Dialer).DialContext(ctx, network, address)
			}}
			cfg, err := ParseConfig(fmt.Sprintf("host=%s port=%d connect_timeout=%s", tt.list, f.port, tt.timeout))
			if err != nil {
				t.Fatal(err)
			}
			before := cfg.ConnectTimeout
			if err := d.BeforeConnect(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			if len(given) != 1 || given[0] < tt.least || given[0] > tt.most {
				t.Errorf("conmgr was given %v, want one time of %v to %v", given, tt.least, tt.most)
			}
			if before > 0 && cfg.ConnectTimeout > before-50*time.Millisecond {
				t.Errorf("the instance is given %v: the answer had taken 50 ms of %v", cfg.ConnectTimeout, before)
			}
		})
	}
}

// A conmgr that accepts and says nothing costs its time and no more; the caller's
// context ends it too.
func TestHungConmgr(t *testing.T) {
	t.Parallel()
	port, next := agenttest.FreePort(t), mustPostgres(t, nil)
	mustMark(t, port)
	start := time.Now()
	conn, err := Connect(t.Context(), fmt.Sprintf("host=localhost,127.0.0.1 port=%d,%d connect_timeout=2 %s", port, next.port(), plain))
	if err != nil {
		t.Fatal(err)
	}
	closeConn(conn)
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("conmgr had %v, want two seconds", took)
	}
	if next.count(accepted) != 1 {
		t.Errorf("the next destination was tried %d times", next.count(accepted))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Connect(ctx, fmt.Sprintf("host=localhost port=%d %s", port, plain))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want that of the context", err)
	}
}

// A dial that hangs ends when the instance is lost, not when its time is over.
func TestLostWhileDialling(t *testing.T) {
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	cfg, err := ParseConfig(f.dsn())
	if err != nil {
		t.Fatal(err)
	}
	dialling := make(chan struct{})
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	result := make(chan error, 1)
	go func() { _, err := ConnectConfig(t.Context(), cfg); result <- err }()
	<-dialling
	f.lose(0, "timeout")
	checkFault(t, <-result)
}

// The same for one that hangs in its startup.
func TestLostWhileStarting(t *testing.T) {
	p := mustPostgres(t, func(p *postgres) { p.mute = true })
	f := mustFleet(t, instanceOf(0, p))
	result := make(chan error, 1)
	go func() { _, err := Connect(t.Context(), f.dsn()); result <- err }()
	agenttest.Eventually(t, patience, "connected", func() bool { return p.count(accepted) == 1 })
	f.lose(0, "timeout")
	checkFault(t, <-result)
}

// The configuration that a connection returns describes the instance that was
// reached, and connects to it again, watched.
func TestConfigAgain(t *testing.T) {
	second, ca := mustSecured(t, "db1")
	gone := instanceOf(0, second)
	gone.Port = agenttest.FreePort(t)
	f := mustFleet(t, gone, instanceOf(1, second))
	conn := mustConnect(t, &std, f.dsn("sslmode=verify-full connect_timeout=3 sslrootcert="+ca))
	cfg := conn.Config()
	if cfg.Host != "db1" || cfg.Port != second.port() || cfg.TLSConfig.ServerName != "db1" || cfg.ConnectTimeout != 3*time.Second {
		t.Errorf("configuration of the connection: %s:%d, %s, %v", cfg.Host, cfg.Port, cfg.TLSConfig.ServerName, cfg.ConnectTimeout)
	}
	again, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(again)
	if w := WatchOf(again.PgConn()); w == nil || w.Instance().Number != 1 {
		t.Error("the second connection is not watched")
	}
}

// The session of the question becomes that of the connection, or ends by itself.
func TestQuestion(t *testing.T) {
	t.Parallel()
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	var dialled atomic.Int32
	d := &Dialer{DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	closeConn(mustConnect(t, d, f.dsn()))
	if n := dialled.Swap(0); n != 1 {
		t.Errorf("%d sessions for a connect, want 1", n)
	}
	cfg, err := ParseConfig(f.dsn())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.BeforeConnect(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, patience, "sessions without a connection gone", func() bool { return f.server.Apps().Count() == 0 })
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	if n := dialled.Load(); n != 2 || WatchOf(conn.PgConn()) == nil {
		t.Errorf("%d sessions, watched %v; want a new one in the place of the one that ended", n, WatchOf(conn.PgConn()) != nil)
	}
	dialled.Store(0)
	closeConn(mustConnect(t, d, fmt.Sprintf("host=127.0.0.1,localhost port=%d,%d %s", p.port(), f.port, plain)))
	agenttest.Eventually(t, patience, "the session of the second destination gone", func() bool { return f.server.Apps().Count() == 1 })
}
