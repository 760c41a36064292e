// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// writer is an application with an unmodified driver that inserts a row every
// few milliseconds and connects again whenever it has lost its connection.
type writer struct {
	w    *world
	rows atomic.Int64 // inserted so far
	// turns are the first insert on a connection, and its error.
	turns chan turn
}

// turn is how a connection of the writer began or ended.
type turn struct {
	at     mono.Instant
	server string // address of the instance, when it began
	err    error  // when it ended
}

// startWriter starts the writer, which ends with the world.
func (w *world) startWriter() *writer {
	a := &writer{w: w, turns: make(chan turn, 100)}
	w.tasks.Go(a.run)
	return a
}

// pause is the time between two inserts, or attempts to connect.
const pause = 5 * time.Millisecond

func (a *writer) run() {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for a.w.ctx.Err() == nil {
		if conn, err := a.w.connect(); err == nil {
			a.insert(conn, tick.C)
			closeSoon(conn)
		}
		<-tick.C
	}
}

// insert inserts rows until the first error.
func (a *writer) insert(conn *pgx.Conn, tick <-chan time.Time) {
	server := ""
	for {
		var on string
		err := conn.QueryRow(a.w.ctx, "INSERT INTO ledger (n) VALUES ($1) RETURNING host(inet_server_addr())", a.rows.Load()+1).Scan(&on)
		if err != nil {
			if server != "" { // else the instance was not ready yet
				a.turns <- turn{at: clock.Now(), err: err}
			}
			return
		}
		a.rows.Add(1)
		if server == "" {
			server = on
			a.turns <- turn{at: clock.Now(), server: on}
		}
		<-tick
	}
}

// connect connects through conmgr with pgx as it is; only the dialer knows that
// the client host is a namespace.
func (w *world) connect() (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres application_name=writer connect_timeout=2", portPrimary))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return w.client.Dial(ctx, network, addr)
	}
	return pgx.ConnectConfig(w.ctx, cfg)
}

// closeSoon does not wait for a server that is gone.
func closeSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// end is how a program or a statement ended.
type end struct {
	at   mono.Instant
	text string // its first line of output
	err  error
}

// watch starts a program and delivers its end.
func (w *world) watch(cmd *agenttest.Cmd) (<-chan end, error) {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan end, 1)
	w.tasks.Go(func() { waitFor(cmd, &output, ended) })
	return ended, nil
}

func waitFor(cmd *agenttest.Cmd, output *bytes.Buffer, ended chan<- end) {
	err := cmd.Wait()
	at := clock.Now()
	first, _, _ := strings.Cut(strings.TrimSpace(output.String()), "\n")
	ended <- end{at: at, text: first, err: err}
}

// startReport starts a psql on the client that is busy for an hour.
func (w *world) startReport() (<-chan end, error) {
	ended, err := w.watch(w.psql(w.ctx, portPrimary, "postgres", "-c", "SELECT pg_sleep(3600)"))
	if err != nil {
		return nil, err
	}
	return ended, w.untilFound(w.primary, "the long query of psql",
		"SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'")
}

// startLocker starts a psql on the client that locks a table and then does
// nothing, as a user at lunch.
func (w *world) startLocker() error {
	cmd := w.psql(w.ctx, portPrimary, "postgres")
	input, hold := io.Pipe()
	context.AfterFunc(w.ctx, func() { _ = hold.Close() })
	cmd.Stdin = input
	if _, err := w.watch(cmd); err != nil {
		return err
	}
	if _, err := io.WriteString(hold, "BEGIN;\nLOCK TABLE accounts;\n"); err != nil {
		return err
	}
	return w.untilFound(w.standby, "the lock of psql",
		"SELECT 1 FROM pg_locks WHERE relation = 'accounts'::regclass AND mode = 'AccessExclusiveLock' AND granted")
}

// startWaiter starts a session on db2 itself that wants to change the locked
// table.
func (w *world) startWaiter() (<-chan end, error) {
	conn, err := w.standby.Connect(w.ctx)
	if err != nil {
		return nil, err
	}
	ended := make(chan end, 1)
	w.tasks.Go(func() {
		defer closeSoon(conn)
		_, err := conn.Exec(w.ctx, "UPDATE accounts SET balance = balance + 1")
		ended <- end{at: clock.Now(), err: err}
	})
	return ended, w.untilFound(w.standby, "the session that waits for the lock", fmt.Sprintf(
		"SELECT 1 FROM pg_stat_activity WHERE pid = %d AND wait_event_type = 'Lock'", conn.PgConn().PID()))
}

// untilFound waits until a query of an instance returns a row.
func (w *world) untilFound(p *agenttest.Postgres, what, sql string) error {
	conn, err := p.Connect(w.ctx)
	if err != nil {
		return err
	}
	defer closeSoon(conn)
	return w.until(what, func(ctx context.Context) (bool, error) {
		tag, err := conn.Exec(ctx, sql)
		return tag.RowsAffected() > 0, err
	})
}
