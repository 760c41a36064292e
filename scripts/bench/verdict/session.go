// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"
)

// session is a database session whose socket is watched from outside the driver.
type session struct {
	conn  net.Conn
	front *pgproto3.Frontend
	pid   uint32
	fd    int // a duplicate, to poll
}

// newSession takes a connection over from the driver.
func newSession(c *pgx.Conn) (*session, error) {
	pid := c.PgConn().PID()
	hijacked, err := c.PgConn().Hijack()
	if err != nil {
		return nil, err
	}
	s := &session{conn: hijacked.Conn, front: hijacked.Frontend, pid: pid}
	if s.fd, err = duplicate(s.conn); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	return s, nil
}

func duplicate(conn net.Conn) (fd int, err error) {
	raw, err := conn.(interface {
		SyscallConn() (syscall.RawConn, error)
	}).SyscallConn()
	if err != nil {
		return -1, err
	}
	controlled := raw.Control(func(orig uintptr) { fd, err = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(controlled, err)
}

// send begins a query and does not wait for its answer.
func (s *session) send(sql string) error {
	s.front.SendQuery(&pgproto3.Query{String: sql})
	return s.front.Flush()
}

// exec runs a query.
func (s *session) exec(sql string) error {
	if err := s.send(sql); err != nil {
		return err
	}
	var failed error
	for {
		m, err := s.front.Receive()
		if err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			failed = fmt.Errorf("%s: %s", sql, m.Message)
		case *pgproto3.ReadyForQuery:
			return failed
		}
	}
}

func (s *session) close() {
	_ = unix.Close(s.fd)
	_ = s.conn.Close()
}

// cast are the sessions of one death and what is watched of them.
type cast struct {
	sessions []*session
	pidfds   []int
	seen     []watched
}

// watched is a descriptor that becomes readable when the fact is there.
type watched struct {
	fact   string
	fd     int
	server bool // a fact on the server's side
}

// Facts, the second half of a row's name.
const (
	factApplication = "error of an application on a pass-through port"
	factConsole     = "error of a console session after TARGET any"
	factBackend     = "backend of the dead client ended (its process)"
	factLock        = "lock of the dead client granted to another session"
)

// open makes applications of the client: one on the console, and holders of
// locks on the pass-through port, each with a session on the server that waits
// for its lock. Busy ones compute for ever.
func (w *world) open(ctx context.Context, holders int, busy bool) (*cast, error) {
	c := new(cast)
	if err := w.fill(ctx, c, holders, busy); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (w *world) fill(ctx context.Context, c *cast, holders int, busy bool) error {
	console, err := w.session(ctx, c, "dbname=conmgr", portConsole)
	if err != nil {
		return err
	}
	if err := console.exec("TARGET any"); err != nil {
		return err
	}
	c.seen = append(c.seen, watched{factConsole, console.fd, false})
	for i := range holders {
		if err := w.holder(ctx, c, i, busy); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) session(ctx context.Context, c *cast, dsn string, port int) (*session, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	var s *session
	err := eventually(ctx, "a connection to "+addr, func() error {
		conn, err := w.connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%d %s", port, dsn), "tcp", addr)
		if err != nil {
			return err
		}
		s, err = newSession(conn)
		return err
	})
	if err == nil {
		c.sessions = append(c.sessions, s)
	}
	return s, err
}

// holder opens the holder of lock number i and who waits for that lock.
func (w *world) holder(ctx context.Context, c *cast, i int, busy bool) error {
	app, err := w.session(ctx, c, "dbname=postgres", portAny)
	if err != nil {
		return err
	}
	lock := fmt.Sprintf("SELECT pg_advisory_lock(%d)", i)
	if err := app.exec(lock); err != nil {
		return err
	}
	if busy {
		if err := app.send("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"); err != nil {
			return err
		}
	}
	waiter, err := w.instance.Connect(ctx)
	if err != nil {
		return err
	}
	other, err := newSession(waiter)
	if err != nil {
		return err
	}
	c.sessions = append(c.sessions, other)
	if err := other.send(lock); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(int(app.pid), 0)
	if err != nil {
		return fmt.Errorf("backend %d: %w", app.pid, err)
	}
	c.pidfds = append(c.pidfds, pidfd)
	c.seen = append(c.seen,
		watched{factApplication, app.fd, false}, watched{factBackend, pidfd, true}, watched{factLock, other.fd, true})
	return nil
}

func (c *cast) fds() []int {
	var fds []int
	for _, s := range c.seen {
		fds = append(fds, s.fd)
	}
	return fds
}

func (c *cast) close() {
	for _, s := range c.sessions {
		s.close()
	}
	for _, fd := range c.pidfds {
		_ = unix.Close(fd)
	}
}
