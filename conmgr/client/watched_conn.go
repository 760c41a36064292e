// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net"
)

// watchedConn is a connection to an instance. A fault closes what is below it,
// which ends blocked calls; they then return the fault.
type watchedConn struct {
	net.Conn
	watch *Watch
}

// Read reads from the instance.
func (c *watchedConn) Read(b []byte) (int, error) {
	if f := c.watch.fault(); f != nil {
		return 0, f
	}
	n, err := c.Conn.Read(b)
	if err != nil {
		err = c.watch.explain(err)
	}
	return n, err
}

// Write writes to the instance.
func (c *watchedConn) Write(b []byte) (int, error) {
	if f := c.watch.fault(); f != nil {
		return 0, f
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		err = c.watch.explain(err)
	}
	return n, err
}

// Close closes the connection and its session with conmgr.
func (c *watchedConn) Close() error {
	c.watch.close()
	return c.Conn.Close()
}

// NetConn returns the connection below.
func (c *watchedConn) NetConn() net.Conn { return c.Conn }

// explain returns the fault in the place of the error that it caused.
func (w *Watch) explain(err error) error {
	if f := w.fault(); f != nil {
		return f
	}
	return err
}

// abort closes a connection whose other end is given up. Bytes that were not
// acknowledged are thrown away: the kernel would keep sending them to nobody.
func abort(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(int) error }); ok && hasUnsent(conn) {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// connect dials the instance of a watch. A fault meanwhile ends it.
func (w *Watch) connect(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	dialCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(w.ctx, func() { cancel(w.Err()) })
	defer stop()
	conn, err := dial(dialCtx)
	if err != nil {
		err = w.explain(err)
		w.close()
		return nil, err
	}
	if err := w.attach(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &watchedConn{Conn: conn, watch: w}, nil
}
