// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// bound is an application of the client host that asked the console for an
// instance and watches that session.
type bound struct {
	w    *world
	conn *pgx.Conn
	addr string // of the instance
	ends chan boundEnd
}

// boundEnd is how the console session ended.
type boundEnd struct {
	appEnd
	fault *conmgrFault // nil: no notification came before
}

// conmgrFault is the payload on the channel conmgr_fault.
type conmgrFault struct {
	Instance  int    `json:"instance"`
	HostAddr  string `json:"hostaddr"`
	Port      int    `json:"port"`
	Reason    string `json:"reason"`
	SilenceMS int64  `json:"silence_ms"`
}

// console opens a console session on the application port.
func (w *world) console(h *agenttest.Host, notice func(*pgconn.Notification)) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=app dbname=conmgr connect_timeout=5", portConsole))
	w.must(err)
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return h.Dial(ctx, network, addr)
	}
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { notice(n) }
	return pgx.ConnectConfig(w.Context(), cfg)
}

// target binds a console session to the best instance of a target and waits for
// its end in the background.
func (w *world) target(attribute string) *bound {
	w.Helper()
	b := &bound{w: w, ends: make(chan boundEnd, 1)}
	var fault *conmgrFault
	conn, err := w.console(w.client, func(n *pgconn.Notification) {
		f := new(conmgrFault)
		if n.Channel == "conmgr_fault" && json.Unmarshal([]byte(n.Payload), f) == nil {
			fault = f
		}
	})
	w.must(err)
	b.conn = conn
	watched := make(chan struct{})
	w.Cleanup(func() {
		<-watched // the end of the test ends that
		closeSoon(conn)
	})
	if err := conn.QueryRow(w.Context(), "TARGET "+attribute).Scan(nil, nil, &b.addr, nil, nil); err != nil {
		close(watched)
		w.failf("TARGET %s: %v", attribute, err)
	}
	go func() {
		defer close(watched)
		err := conn.PgConn().WaitForNotification(w.Context())
		if err == nil { // the error follows the notification
			err = conn.PgConn().WaitForNotification(w.Context())
		}
		b.ends <- boundEnd{appEnd{at: now(), err: err}, fault}
	}()
	return b
}

// ended returns how the session ended; the row fails when it goes on, or when
// that is not what the console's interface promises.
func (b *bound) ended(what string) boundEnd {
	b.w.Helper()
	var end boundEnd
	select {
	case end = <-b.ends:
	case <-time.After(b.w.patience()):
		b.w.failf("%s: still waits after %v", what, b.w.patience())
	}
	e, ok := errors.AsType[*pgconn.PgError](end.err)
	if !ok || e.Code != "57P01" || e.Severity != "FATAL" {
		b.w.failf("%s: ended with %v: expected FATAL 57P01", what, end.err)
	}
	if end.fault == nil || end.fault.HostAddr != b.addr {
		b.w.failf("%s: notified of %+v: expected the loss of %s", what, end.fault, b.addr)
	}
	return end
}

// endless is a source of COPY data that never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
		if i%1000 == 999 {
			b[i] = '\n'
		}
	}
	return len(b), nil
}

// pour writes rows without end; see ended.
func (a *app) pour(table string) {
	a.async(func(ctx context.Context) error {
		_, err := a.conn.PgConn().CopyFrom(ctx, endless{}, "COPY "+table+" FROM STDIN")
		return err
	})
}

// hasEnded reports whether the session has ended.
func (b *bound) hasEnded() bool { return len(b.ends) > 0 }
