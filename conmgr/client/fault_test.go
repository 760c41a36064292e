// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// endless is a source for COPY.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	return copy(b, bytes.Repeat([]byte("x\n"), len(b)/2+1)), nil
}

// uses are what a connection may be doing when its instance is lost.
var uses = map[string]func(context.Context, *pgx.Conn) error{
	"blocked read": func(ctx context.Context, c *pgx.Conn) error { _, err := c.Exec(ctx, "block"); return err },
	"blocked write": func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.PgConn().CopyFrom(ctx, endless{}, "copy t from stdin")
		return err
	},
	"blocked read, extended": func(ctx context.Context, c *pgx.Conn) error {
		return c.PgConn().ExecParams(ctx, "block", nil, nil, nil, nil).Read().Err
	},
	"blocked read, prepare": func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Prepare(ctx, "p", "block")
		return err
	},
	"listening": func(ctx context.Context, c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "listen x"); err != nil {
			return err
		}
		_, err := c.WaitForNotification(ctx)
		return err
	},
	"in a transaction": func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		<-WatchOf(c.PgConn()).Done()
		return tx.Commit(ctx)
	},
	"idle": func(ctx context.Context, c *pgx.Conn) error {
		<-WatchOf(c.PgConn()).Done()
		_, err := c.Exec(ctx, "select 1")
		if err != nil && !pgconn.SafeToRetry(err) {
			return errors.Join(errors.New("nothing was sent, but the error does not say so"), err)
		}
		return err
	},
	"between batches": func(ctx context.Context, c *pgx.Conn) error {
		p := c.PgConn().StartPipeline(ctx)
		p.SendQueryParams("select 1", nil, nil, nil, nil)
		<-WatchOf(c.PgConn()).Done()
		if err := p.Sync(); err != nil {
			return err
		}
		_, err := p.GetResults()
		return err
	},
}

// Whatever a connection does, a fault ends it with an error that says which
// instance and why, and leaves nothing to wait for.
func TestFault(t *testing.T) {
	for name, use := range uses {
		for _, secured := range []bool{false, true} {
			t.Run(strings.ReplaceAll(name, " ", "-")+map[bool]string{true: "-tls"}[secured], func(t *testing.T) {
				primary := mustPostgres(t, func(p *postgres) { p.tls = serverTLS(t, "db0", secured) })
				f := mustFleet(t, instanceOf(0, primary))
				told := make(chan *FaultError, 1)
				d := &Dialer{OnFault: func(e *FaultError) { told <- e }}
				dsn := f.dsn()
				if secured {
					dsn = f.dsn("sslmode=require")
				}
				conn := mustConnect(t, d, dsn)
				result := make(chan error, 1)
				go func() { result <- use(t.Context(), conn) }()
				if strings.HasPrefix(name, "blocked") {
					w := WatchOf(conn.PgConn())
					agenttest.Eventually(t, patience, name, func() bool {
						return primary.count(blocking) == 1 && (name != "blocked write" || hasUnsent(w.conn))
					})
				}
				f.lose(0, "timeout")
				err := <-result
				checkFault(t, err)
				if pgconn.Timeout(err) {
					t.Error("pgx takes the fault for a timeout")
				}
				if e := <-told; e.Reason != "timeout" {
					t.Errorf("OnFault was told %v", e)
				}
				if !conn.IsClosed() {
					t.Error("pgx takes the connection for a good one")
				}
				<-conn.PgConn().CleanupDone() // not held up by a cancel request
				if n := primary.count(cancels); n != 0 {
					t.Errorf("%d cancel requests to an instance that is lost", n)
				}
			})
		}
	}
}

// checkFault wants the fault of instance 0 by timeout.
func checkFault(t testing.TB, err error) {
	t.Helper()
	fault, ok := errors.AsType[*FaultError](err)
	if !ok {
		t.Fatalf("error is %v, want a FaultError", err)
	}
	if fault.Instance.Number != 0 || fault.Instance.Host != "db0" || fault.Reason != "timeout" || fault.Silence != 1500*time.Millisecond {
		t.Errorf("fault is %+v", fault)
	}
	if !errors.Is(err, ErrFault) || errors.Is(err, ErrConmgrLost) {
		t.Errorf("errors.Is: fault %v, conmgr lost %v; want true, false", errors.Is(err, ErrFault), errors.Is(err, ErrConmgrLost))
	}
	var state interface{ SQLState() string }
	if !errors.As(err, &state) || state.SQLState() != "57P01" {
		t.Error("the error has not the SQLSTATE 57P01")
	}
	if text := fault.Error(); !strings.Contains(text, "0 db0:") || !strings.Contains(text, "timeout, silent for 1500 ms") {
		t.Errorf("text of the fault: %s", text)
	}
}

// An idle connection leaves the pool at once; one in use with its error. The
// places are free at once, and the next one leads to the new instance.
func TestFaultInPool(t *testing.T) {
	old, next := mustPostgres(t, nil), mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, old))
	pool, err := NewPool(t.Context(), f.dsn("pool_max_conns=3"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	used := acquire(t, pool, 3)
	result := make(chan error, 1)
	go func() { _, err := used[0].Exec(t.Context(), "block"); result <- err }()
	used[1].Release()
	used[2].Release()
	agenttest.Eventually(t, patience, "statement begun", func() bool { return old.count(blocking) == 1 })

	f.lose(0, "timeout")
	agenttest.Eventually(t, patience, "idle ones gone", func() bool { return pool.Stat().TotalConns() == 1 })
	checkFault(t, <-result)
	f.set(instanceOf(0, next))
	used[0].Release()
	for _, c := range acquire(t, pool, 3) {
		if got := WatchOf(c.Conn().PgConn()).Instance().Port; got != next.port() {
			t.Errorf("a connection with port %d, want %d", got, next.port())
		}
		c.Release()
	}
}

func acquire(t testing.TB, pool *pgxpool.Pool, n int) []*pgxpool.Conn {
	t.Helper()
	var list []*pgxpool.Conn
	for range n {
		c, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// ConfigurePool alone: no lost connection is handed out.
func TestFaultInConfiguredPool(t *testing.T) {
	old, next := mustPostgres(t, nil), mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, old))
	cfg, err := ParsePoolConfig(f.dsn("pool_max_conns=2"))
	if err != nil {
		t.Fatal(err)
	}
	ConfigurePool(cfg)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, c := range acquire(t, pool, 2) {
		c.Release()
	}
	f.lose(0, "timeout")
	f.set(instanceOf(0, next))
	agenttest.Eventually(t, patience, "told", func() bool { return old.count(open) == 0 })
	for _, c := range acquire(t, pool, 2) {
		if got := WatchOf(c.Conn().PgConn()).Instance().Port; got != next.port() {
			t.Errorf("a connection with port %d, want %d", got, next.port())
		}
		c.Release()
	}
}

// database/sql: the statement in progress gets the fault, the next one a new
// connection.
func TestFaultInSQL(t *testing.T) {
	old, next := mustPostgres(t, nil), mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, old))
	db, err := OpenDB(f.dsn())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	busy, idle := mustSQL(t, db), mustSQL(t, db)
	result := make(chan error, 1)
	go func() { _, err := busy.ExecContext(t.Context(), "block"); result <- err }()
	agenttest.Eventually(t, patience, "both open", func() bool { return old.count(open) == 2 })
	if err := idle.Close(); err != nil { // back to the pool
		t.Fatal(err)
	}
	agenttest.Eventually(t, patience, "statement begun", func() bool { return old.count(blocking) == 1 })
	f.lose(0, "timeout")
	f.set(instanceOf(0, next))
	checkFault(t, <-result)
	if err := db.PingContext(t.Context()); err != nil {
		t.Errorf("the next statement: %v", err)
	}
	if next.count(accepted) != 1 {
		t.Errorf("%d connections with the new instance, want 1", next.count(accepted))
	}
	_ = busy.Close()
}

func mustSQL(t testing.TB, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who asked for a role loses the connection with it; who did not keeps it.
func TestRoleChange(t *testing.T) {
	primary := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, primary))
	asked, whatever := mustConnect(t, &std, f.dsn("target_session_attrs=primary")), mustConnect(t, &std, f.dsn())
	f.lose(0, "role change", conmgr.Primary, conmgr.ReadWrite)
	<-WatchOf(asked.PgConn()).Done()
	err := asked.Ping(t.Context())
	if e, ok := errors.AsType[*FaultError](err); !ok || e.Reason != "role change" {
		t.Errorf("who asked for the primary got %v", err)
	}
	if err := whatever.Ping(t.Context()); err != nil {
		t.Errorf("who asked for any instance got %v", err)
	}
}

// The end of conmgr is a fault of its own kind.
func TestConmgrStops(t *testing.T) {
	primary := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, primary))
	conn := mustConnect(t, &std, f.dsn())
	f.stop()
	<-WatchOf(conn.PgConn()).Done()
	err := conn.Ping(t.Context())
	if e, ok := errors.AsType[*FaultError](err); !ok || e.Reason != "stop" || !errors.Is(err, ErrConmgrLost) || !errors.Is(err, ErrFault) {
		t.Errorf("error is %v, want that of a lost conmgr, reason stop", err)
	}
}

// A closed connection is no fault.
func TestClose(t *testing.T) {
	f := mustFleet(t, instanceOf(0, mustPostgres(t, nil)))
	d := &Dialer{OnFault: func(e *FaultError) { t.Errorf("told %v", e) }}
	conn := mustConnect(t, d, f.dsn())
	w := WatchOf(conn.PgConn())
	closeConn(conn)
	<-w.Done()
	if w.Err() == nil || errors.Is(w.Err(), ErrFault) {
		t.Errorf("the watch ended with %v", w.Err())
	}
	agenttest.Eventually(t, patience, "session gone", func() bool { return f.server.Apps().Count() == 0 })
}
