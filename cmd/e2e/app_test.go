// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// connect opens a connection from a host with an unmodified driver.
func (w *world) connect(h *agenttest.Host, addr string, port int) (*pgx.Conn, error) {
	return w.connectAs(w.Context(), "postgres", h, addr, port)
}

func (w *world) connectAs(ctx context.Context, user string, h *agenttest.Host, addr string, port int) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres connect_timeout=5", addr, port, user))
	w.must(err)
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return h.Dial(ctx, network, addr)
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// app is an application of the client host, connected through a pass-through
// port of its conmgr.
type app struct {
	w    *world
	conn *pgx.Conn
	pid  uint32 // of its backend
	ends chan appEnd

	background sync.WaitGroup // for what was begun on the connection
}

// appEnd is how a statement ended.
type appEnd struct {
	at      mono.Instant
	err     error
	payload string // of the last notification before; see listen
}

// code is the SQLSTATE of the error, "" when the server did not send one.
func (e appEnd) code() string {
	if refused, ok := errors.AsType[*pgconn.PgError](e.err); ok {
		return refused.Code
	}
	return ""
}

// open connects through conmgr; the row fails when that does not work.
func (w *world) open(port int) *app { return w.openFrom(w.client, port) }

func (w *world) openFrom(h *agenttest.Host, port int) *app { return w.openAs("postgres", h, port) }

// openAs connects as a user through the conmgr of a host.
func (w *world) openAs(user string, h *agenttest.Host, port int) *app {
	w.Helper()
	var conn *pgx.Conn
	w.expect(fmt.Sprintf("a connection through port %d", port), func() (ok bool) {
		var err error
		conn, err = w.connectAs(w.Context(), user, h, "127.0.0.1", port)
		return err == nil
	})
	return w.adopt(conn)
}

// openDirect connects from a host straight to an instance, as a stranger to
// conmgr does.
func (w *world) openDirect(from *agenttest.Host, p *agenttest.Postgres) *app {
	w.Helper()
	return w.openAt(from, w.addr(p.Host).String(), int(p.Port))
}

// openAt connects from a host to an address; the row fails when that does not work at
// once: a verdict may be why.
func (w *world) openAt(from *agenttest.Host, addr string, port int) *app {
	w.Helper()
	conn, err := w.connect(from, addr, port)
	if err != nil {
		w.failf("a connection from %s to %s port %d: %v", from.Name, addr, port, err)
	}
	return w.adopt(conn)
}

func (w *world) adopt(conn *pgx.Conn) *app {
	a := &app{w: w, conn: conn, pid: conn.PgConn().PID(), ends: make(chan appEnd, 1)}
	w.Cleanup(func() {
		a.background.Wait() // the end of the test has ended its statement
		closeSoon(conn)
	})
	return a
}

// closeSoon closes a connection whose other end may be dead.
func closeSoon(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// async does something that blocks; see ended.
func (a *app) async(do func(context.Context) error) {
	a.background.Go(func() {
		err := do(a.w.Context())
		a.ends <- appEnd{at: now(), err: err}
	})
}

// exec runs a statement that the row promises to work.
func (a *app) exec(sql string) {
	a.w.Helper()
	if _, err := a.conn.Exec(a.w.Context(), sql); err != nil {
		a.w.failf("%s: %v", sql, err)
	}
}

// value returns the one value of a query, as text.
func (a *app) value(sql string) string {
	a.w.Helper()
	var v string
	if err := a.conn.QueryRow(a.w.Context(), sql).Scan(&v); err != nil {
		a.w.failf("%s: %v", sql, err)
	}
	return v
}

// begin runs a statement that blocks; see ended.
func (a *app) begin(sql string) {
	a.async(func(ctx context.Context) error {
		_, err := a.conn.Exec(ctx, sql)
		return err
	})
}

// idle waits for whatever comes on the idle connection; see ended.
func (a *app) idle() {
	a.async(func(ctx context.Context) error {
		_, err := a.conn.WaitForNotification(ctx)
		return err
	})
}

// listen waits for the end of the connection and keeps what is notified before;
// see ended.
func (a *app) listen() {
	go func() {
		payload := ""
		for {
			n, err := a.conn.WaitForNotification(a.w.Context())
			if err != nil {
				a.ends <- appEnd{now(), err, payload}
				return
			}
			payload = n.Payload
		}
	}()
}

// leave resets the connection, whatever goes on in it. A mere close would not do
// for a statement in progress: the server looks at its socket when that is over.
func (a *app) leave() {
	conn := a.conn.PgConn().Conn().(*net.TCPConn)
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

// ended returns how the statement or the idling ended; the row fails when it
// goes on.
func (a *app) ended(what string) appEnd {
	a.w.Helper()
	select {
	case e := <-a.ends:
		return e
	case <-time.After(a.w.patience()):
		a.w.failf("%s: still waits after %v", what, a.w.patience())
	}
	panic("unreachable")
}

// hasEnded reports whether the statement or the idling has ended.
func (a *app) hasEnded() bool { return len(a.ends) > 0 }

// instances returns SHOW INSTANCES of a conmgr by column name; nothing while it
// cannot be asked.
func (w *world) instances(cm *agenttest.Conmgr) []map[string]string {
	return w.show(cm, "SHOW INSTANCES")
}

// show runs a console command over conmgr.sock.
func (w *world) show(cm *agenttest.Conmgr, command string) []map[string]string {
	cfg, err := pgx.ParseConfig("host=" + cm.Dir + " dbname=conmgr user=test connect_timeout=2")
	w.must(err)
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return cm.Host.Dial(ctx, "unix", filepath.Join(cm.Dir, "conmgr.sock"))
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(w.Context(), cfg)
	if err != nil {
		return nil
	}
	defer conn.Close(context.WithoutCancel(w.Context()))
	rows, err := conn.PgConn().Exec(w.Context(), command).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil
	}
	var out []map[string]string
	for _, r := range rows[0].Rows {
		m := map[string]string{}
		for i, f := range rows[0].FieldDescriptions {
			m[f.Name] = string(r[i])
		}
		out = append(out, m)
	}
	return out
}

// monitoring is what conmgr says of the instance on a host.
func (w *world) monitoring(cm *agenttest.Conmgr, h *agenttest.Host) string {
	for _, in := range w.instances(cm) {
		if in["hostaddr"] == w.addr(h).String() {
			return in["monitoring"]
		}
	}
	return ""
}

// backends counts the sessions of a client address on an instance, as another
// session sees them.
func (w *world) backends(p *agenttest.Postgres, client *agenttest.Host) int {
	w.Helper()
	n, err := strconv.Atoi(agenttest.MustQuery(w, p,
		"SELECT count(*)::text FROM pg_stat_activity WHERE client_addr = $1", w.addr(client).String())[0])
	w.must(err)
	return n
}

// oneConnect is how long a connect may take that is tried again when it fails.
const oneConnect = 5 * time.Second

// landsOn returns the address of the instance that a new connection through
// conmgr reaches, "" when it reaches none within a moment.
func (w *world) landsOn(port int) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), oneConnect)
	defer cancel()
	conn, err := w.connectAs(ctx, "postgres", w.client, "127.0.0.1", port)
	if err != nil {
		return ""
	}
	defer closeSoon(conn)
	var addr string
	if err := conn.QueryRow(ctx, "SELECT host(inet_server_addr())").Scan(&addr); err != nil {
		return ""
	}
	return addr
}
