// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// kind is what a session does all the time.
type kind int

const (
	idle          kind = iota
	inTransaction      // idle in a transaction
	asking             // asks and asks again
	console            // waits on conmgr's console to be told of a fault
)

// session is one application.
type session struct {
	name   string
	kind   kind
	direct bool // past conmgr

	mu   sync.Mutex // guards the following
	conn *pgx.Conn
	pid  uint32 // of its backend, 0 without one
	gone bool   // the backend is, as the server says
}

// open connects and gets the session into its state.
func (s *session) open(ctx context.Context, w *world) error {
	addr, database := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), portAny), "postgres"
	if s.direct {
		addr = w.instance.Addr()
	}
	if s.kind == console {
		addr, database = netip.AddrPortFrom(addr.Addr(), portConsole), "conmgr"
	}
	conn, err := w.connect(ctx, addr, database)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, conn); err != nil {
		_ = conn.PgConn().Conn().Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.pid, s.gone = conn, conn.PgConn().PID(), false
	if s.kind == console {
		s.pid = 0
	}
	return nil
}

func (s *session) prepare(ctx context.Context, conn *pgx.Conn) error {
	first := map[kind]string{inTransaction: "BEGIN; SELECT 1", console: "TARGET any"}[s.kind]
	if first == "" {
		return nil
	}
	_, err := conn.Exec(ctx, first)
	return err
}

// watch returns when the session has ended, and how.
func (s *session) watch(ctx context.Context) error {
	if s.kind != asking {
		n, err := s.conn.WaitForNotification(ctx)
		if err == nil {
			err = fmt.Errorf("told on %s: %s", n.Channel, n.Payload)
		}
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.conn.Exec(ctx, "SELECT 1"); err != nil {
			return err
		}
		<-tick.C
	}
}

// close drops the connection without a word: its other end may be dead.
func (s *session) close() { _ = s.conn.PgConn().Conn().Close() }

// backend returns the pid of the session's backend, 0 without one.
func (s *session) backend() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// backendGone reports whether lost was called for the present backend.
func (s *session) backendGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// lost ends the watch of a session whose backend is gone.
func (s *session) lost(pid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid == pid {
		s.gone = true
		s.close()
	}
}
