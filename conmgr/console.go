// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// consoleDatabase is the one database that the console serves.
const consoleDatabase = "conmgr"

// console is one session of the console. Its goroutine owns everything but
// out, which a fault may end from elsewhere.
type console struct {
	server *Server
	app    *app
	conn   stream
	in     *intake
	out    *outlet

	pending  []byte // messages not sent yet
	txn      byte   // ReadyForQuery status: I, T or E
	skipping bool   // after an error of the extended protocol, until Sync
	prepared map[string]*prepared
	portals  map[string]*portal

	applicationName string
	greeted         atomic.Bool // startup is over
}

// Bounds of what one client may make conmgr keep.
const (
	maxPrepared = 1000
	maxPortals  = 64
	maxName     = 255
	flushAt     = 64 << 10
)

// Ready, in transaction, failed: as ReadyForQuery tells it.
const (
	txnIdle   = 'I'
	txnOpen   = 'T'
	txnFailed = 'E'
)

// end tells a session that conmgr goes; one that is still starting only the
// error, since clients expect no notification then.
func (c *console) end(notice []byte) {
	if !c.greeted.Load() {
		notice = notice[1+binary.BigEndian.Uint32(notice[1:]):]
	}
	c.out.end(notice)
	c.out.linger()
}

// kill closes with RST, unless a notice was written that must arrive.
func (c *console) kill() {
	if c.out.done.Load() {
		_ = c.conn.Close()
		return
	}
	reset(c.conn)
}

// greet ends the startup: no authentication, as the hop is local.
func (c *console) greet(st *startup) error {
	version, tell := st.speaks()
	if tell {
		c.add(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: version, UnrecognizedOptions: st.protocol})
	}
	c.applicationName = st.param("application_name")
	c.add(&pgproto3.AuthenticationOk{})
	c.pending = appendParameters(c.pending, c.applicationName, c.server.opts.Status().Version)
	// Nothing runs long enough here to be cancelled; the key only has to be one.
	key := make([]byte, 4)
	if version >= protocol32 {
		key = make([]byte, 32)
	}
	fillRandom(key)
	c.add(&pgproto3.BackendKeyData{ProcessID: uint32(c.app.id), SecretKey: key})
	c.greeted.Store(true)
	return c.ready()
}

// serve answers messages until the client leaves, breaks the protocol, or was
// told its end.
func (c *console) serve(ctx context.Context) error {
	for {
		kind, body, err := c.in.message()
		if err == nil {
			err = c.handle(ctx, kind, body)
		}
		if err == nil {
			continue
		}
		if e, ok := errors.AsType[*pgError](err); ok { // fatal: tell why
			c.pending = appendError(c.pending, e)
			_ = c.flush()
		}
		return err
	}
}

// errTerminated is the client's Terminate message.
var errTerminated = errors.New("terminated by the client")

// handle answers one message. An error ends the session.
func (c *console) handle(ctx context.Context, kind byte, body []byte) error {
	switch {
	case kind == 'X':
		return errTerminated
	case kind == 'S':
		c.skipping = false
		c.closePortals()
		return c.ready()
	case c.skipping:
		return nil
	case kind == 'Q':
		return c.simpleQuery(ctx, body)
	case kind == 'H':
		return c.flush()
	}
	err := c.extended(ctx, kind, body)
	if e, ok := errors.AsType[*pgError](err); ok && e.severity == "ERROR" {
		c.fail(e)
		c.skipping = true
		return c.flushWhenLarge()
	}
	if err != nil {
		return err
	}
	return c.flushWhenLarge()
}

// simpleQuery runs the statements of a Query message. As in PostgreSQL nothing
// runs when one of them cannot be parsed, and an error ends the rest.
func (c *console) simpleQuery(ctx context.Context, body []byte) error {
	var q pgproto3.Query
	if err := q.Decode(body); err != nil {
		return fatal("08P01", "invalid Query message")
	}
	delete(c.prepared, "")
	commands, err := parseCommands(q.String)
	if err == nil && len(commands) == 0 {
		c.add(&pgproto3.EmptyQueryResponse{})
	}
	for _, cmd := range commands {
		if err = c.runSimple(ctx, cmd); err != nil {
			break
		}
	}
	if e, ok := errors.AsType[*pgError](err); ok {
		c.fail(e)
	} else if err != nil {
		return err
	}
	return c.ready()
}

func (c *console) runSimple(ctx context.Context, cmd command) error {
	rows, tag, err := c.execute(ctx, cmd)
	if err != nil {
		return err
	}
	if cols := columnsOf(cmd); cols != nil {
		c.pending = appendRowDescription(c.pending, cols, nil)
	}
	for _, r := range rows {
		c.pending = appendRow(c.pending, r, nil)
		if err := c.flushWhenLarge(); err != nil {
			return err
		}
	}
	c.add(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	return nil
}

// fail reports an error and fails an open transaction.
func (c *console) fail(e *pgError) {
	c.pending = appendError(c.pending, e)
	if c.txn == txnOpen {
		c.txn = txnFailed
	}
}

func (c *console) add(m pgproto3.BackendMessage) { c.pending = appendMessage(c.pending, m) }

func (c *console) ready() error {
	c.add(&pgproto3.ReadyForQuery{TxStatus: c.txn})
	return c.flush()
}

// flush sends what is pending and keeps no memory for it.
func (c *console) flush() error {
	b := c.pending
	c.pending = nil
	if len(b) == 0 {
		return nil
	}
	return c.out.send(b)
}

func (c *console) flushWhenLarge() error {
	if len(c.pending) < flushAt {
		return nil
	}
	return c.flush()
}

// serveConsole runs a session on a new connection: startup, then messages.
func (s *Server) serveConsole(ctx context.Context, conn stream, m *app) {
	c, err := s.newConsole(conn, m)
	if err != nil {
		_ = conn.Close()
		return
	}
	m.ender = c
	s.apps.add(m)
	defer s.apps.remove(m)
	defer func() { _ = conn.Close() }()
	if ctx.Err() != nil { // came behind the last kill
		return
	}

	_ = conn.SetDeadline(m.connected.Add(startupTimeout))
	st, err := s.handshake(c.in, c.out.send)
	switch {
	case errors.Is(err, errCancel):
		s.cancelRequested(ctx, c, st.raw)
		return
	case err == nil && c.proxies(&st):
		if err = s.serveProxied(ctx, c, &st); err == nil {
			return
		}
	case err == nil:
		err = s.admitConsole(&st, m)
	}
	if err != nil {
		s.refuse(c.in, c.out.send, conn, err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	s.apps.setState(m, "idle")
	if err = c.greet(&st); err == nil {
		err = c.serve(ctx)
	}
	if !errors.Is(err, errTerminated) {
		drain(conn, c.in)
	}
}

func (s *Server) newConsole(conn stream, m *app) (*console, error) {
	from, err := newReceiver(conn)
	if err != nil {
		return nil, err
	}
	out, err := newOutlet(conn)
	if err != nil {
		return nil, err
	}
	return &console{server: s, app: m, conn: conn, in: &intake{from: from}, out: out, txn: txnIdle}, nil
}
