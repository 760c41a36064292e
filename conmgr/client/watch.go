// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// comebackTime is how long conmgr may take to restart.
const comebackTime = 5 * time.Second

// Watch is the watch over one connection: its session with conmgr. Methods may
// be called from any goroutine.
type Watch struct {
	conmgr   *console
	instance Instance
	target   string
	offer    *offer // that it was dialled for

	// ctx ends with the watch; its cause is a *FaultError or net.ErrClosed.
	ctx  context.Context
	end  context.CancelCauseFunc
	lost atomic.Pointer[FaultError] // set before the connection is closed, and then ctx ends

	mu      sync.Mutex // guards the following
	session *session
	conn    net.Conn // to the instance; nil until it is dialled
}

// startWatch watches with a session that is bound to the instance.
func startWatch(o *offer, s *session, in Instance, target string) *Watch {
	w := &Watch{conmgr: o.conmgr, session: s, instance: in, target: target, offer: o}
	w.ctx, w.end = context.WithCancelCause(context.Background())
	go w.run(s)
	return w
}

// WatchOf returns the watch over a connection; nil means that it was made without
// a conmgr. A connection that Config.AfterNetConnect has wrapped is recognised
// when the wrapper has the method NetConn, as that of crypto/tls does.
func WatchOf(conn *pgconn.PgConn) *Watch {
	if conn == nil {
		return nil
	}
	return watchOf(conn.Conn())
}

func watchOf(conn net.Conn) *Watch {
	for {
		switch c := conn.(type) {
		case *watchedConn:
			return c.watch
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// Instance is the one that the connection is with. Its attribute is what it was
// when the connection was made.
func (w *Watch) Instance() Instance { return w.instance }

// Conmgr is host and port of the conmgr in the connection string.
func (w *Watch) Conmgr() string { return w.conmgr.name }

// Done is closed when the connection is closed, by a fault or by its owner: what
// PQcmSocket is to libpq.
func (w *Watch) Done() <-chan struct{} { return w.ctx.Done() }

// Err returns nil while the connection is watched, a *FaultError after a fault,
// and net.ErrClosed when the connection was closed without one.
func (w *Watch) Err() error { return context.Cause(w.ctx) }

// fault returns the fault that has ended the watch, or nil.
func (w *Watch) fault() *FaultError { return w.lost.Load() }

// run waits for the end. It owns the session's reading side.
func (w *Watch) run(s *session) {
	for {
		n := s.wait()
		s.close()
		if w.ctx.Err() != nil {
			return
		}
		if n.conmgr && n.reason == reasonRestart {
			if s = w.rebind(); s != nil {
				continue
			}
		}
		w.lose(n)
		return
	}
}

// rebind waits for conmgr to come back and returns a session that is bound to
// the same instance at the same address, nil when there is none in time. What
// is there under another address may be another machine.
func (w *Watch) rebind() *session {
	ctx, cancel := context.WithTimeout(w.ctx, cmp.Or(w.conmgr.dialer.comeback, comebackTime))
	defer cancel()
	same := func(in Instance) bool {
		return in.Host == w.instance.Host && in.HostAddr == w.instance.HostAddr && in.Port == w.instance.Port
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause)): // thousands come back together
		}
		s, _, err := w.conmgr.bind(ctx, w.target, same)
		if err == nil {
			return w.adopt(s)
		}
	}
}

// adopt takes a new session, unless the connection was closed meanwhile.
func (w *Watch) adopt(s *session) *session {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		s.close()
		return nil
	}
	w.session = s
	return s
}

// lose ends the connection by a fault.
func (w *Watch) lose(n notice) {
	f := &FaultError{
		Conmgr: w.conmgr.name, Instance: w.instance,
		Reason: n.reason, Silence: n.silence, conmgrLost: n.conmgr,
	}
	if !w.declare(f) {
		return // its owner was faster
	}
	if w.conmgr.dialer.OnFault != nil {
		w.conmgr.dialer.OnFault(f)
	}
}

// declare makes the fault known and closes the connection, unless its owner has.
func (w *Watch) declare(f *FaultError) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return false
	}
	w.lost.Store(f)
	if w.conn != nil {
		abort(w.conn)
	}
	w.end(f)
	return true
}

// close ends the watch without a fault.
func (w *Watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(net.ErrClosed)
	w.session.close()
}

// attach gives the connection to the watch. After a fault it is refused.
func (w *Watch) attach(conn net.Conn) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return w.Err()
	}
	w.conn = conn
	return nil
}

// remote is the address of the instance as pgx asks for it, empty before the
// connection.
func (w *Watch) remote() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		return ""
	}
	return w.conn.RemoteAddr().String()
}
