// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// connectTimeout bounds one attempt to connect, whatever Connect itself does.
const connectTimeout = 5 * time.Second

// releasePause is how long a connection that was given up stays closed at least.
const releasePause = time.Second

var errReleased = errors.New("given up for the instance's smart shutdown")

// keptConn is a database connection that is opened early, watched while idle,
// and opened again with backoff when it is lost. But for pid it belongs to one
// goroutine.
type keptConn struct {
	connect func(context.Context) (*pgconn.PgConn, error)
	known   func(error) bool // see TerminatorConfig.Known; may be nil
	log     *slog.Logger
	pid     atomic.Uint32

	conn    *pgconn.PgConn // nil while there is none
	retryAt mono.Instant
	backoff time.Duration
	err     error // why there is none
	told    bool  // that was logged
}

// ensure connects when there is no connection and the time for it has come.
func (k *keptConn) ensure(ctx context.Context, now mono.Instant) {
	if k.conn != nil && k.conn.IsClosed() {
		k.lost(errConnClosed)
	}
	if k.conn != nil || now.Before(k.retryAt) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := k.open(ctx)
	if err != nil {
		k.err = err
		k.complain(err)
		k.backoff = min(max(2*k.backoff, retryMin), retryMax)
		k.retryAt = clock.Now().Add(k.backoff)
		return
	}
	if k.err != nil {
		k.log.Info("terminator connected again", "pid", conn.PID())
	}
	k.conn, k.err, k.backoff, k.told = conn, nil, 0, false
	k.pid.Store(conn.PID())
}

// complain logs once why there is no connection, unless the operator knows.
func (k *keptConn) complain(err error) {
	if k.told || k.known != nil && k.known(err) {
		return
	}
	k.told = true
	args := []any{"err", Brief(err)}
	if hint := Advice(err); hint != "" {
		args = append(args, "hint", hint)
	}
	k.log.Error("terminator cannot connect, sessions of lost clients stay until it can", args...)
}

// open connects and readies the connection.
func (k *keptConn) open(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := k.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, conn); err != nil {
		closeSoon(conn)
		return nil, err
	}
	return conn, nil
}

// closeSoon says goodbye, but does not wait long for it.
func closeSoon(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}

// lost gives the connection up. The next ensure tries at once: its slot may
// still be free.
func (k *keptConn) lost(err error) {
	k.log.Warn("terminator lost its connection", "err", err)
	k.close()
	k.err, k.retryAt, k.backoff = err, 0, 0
}

// untried says that the connection was lost and nobody has tried to open it
// again yet.
func (k *keptConn) untried() bool { return k.conn == nil && k.backoff == 0 }

// settle looks at the connection after an error: a broken one is given up.
func (k *keptConn) settle(err error) {
	if k.conn != nil && k.conn.IsClosed() {
		k.lost(err)
	}
}

// watch waits until ctx ends or the connection is lost.
func (k *keptConn) watch(ctx context.Context) {
	if k.conn == nil {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		// Nobody notifies this session: it returns when ctx ends, or with the
		// FATAL or the end of file of a lost connection.
		if err := k.conn.WaitForNotification(ctx); err != nil {
			k.settle(err)
			if k.conn == nil {
				return
			}
		}
	}
}

// release closes the connection on purpose and lets a moment pass before the
// next one.
func (k *keptConn) release(now mono.Instant) {
	k.close()
	k.err, k.backoff = errReleased, retryMin
	k.retryAt = now.Add(releasePause)
}

func (k *keptConn) close() {
	if k.conn == nil {
		return
	}
	closeSoon(k.conn)
	k.conn = nil
	k.pid.Store(0)
}
