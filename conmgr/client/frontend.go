// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgproto3"
)

// frontend stands between pgx's messages and a watched connection, above TLS,
// which says only that it is closed when pgx has closed it meanwhile.
//
// While a simple query runs (Exec without arguments, Ping), pgconn 5.12 drops the
// error of a failed read, closes the connection, and then reports no more than
// that it is closed (MultiResultReader.NextResult ignores what peekMessage
// returns). A timeout does not close it, so it reads again: the first read of a
// simple query that a fault ends is a timeout.
type frontend struct {
	watch  *Watch
	in     io.Reader
	out    io.Writer
	simple atomic.Bool // a simple query runs
}

// buildFrontend is the BuildFrontend.
func (p *plan) buildFrontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	if conn, ok := w.(net.Conn); ok {
		if watch := watchOf(conn); watch != nil {
			f := &frontend{watch: watch, in: r, out: w}
			return p.own.build(f, f)
		}
	}
	return p.own.build(r, w)
}

// Write sees which query begins: pgx writes whole messages.
func (f *frontend) Write(b []byte) (int, error) {
	f.simple.Store(len(b) > 0 && b[0] == 'Q')
	n, err := f.out.Write(b)
	if err != nil {
		err = f.watch.explain(err)
	}
	return n, err
}

// readyForQuery is the message up to its status.
var readyForQuery = []byte{'Z', 0, 0, 0, 5}

// Read sees when the query is over.
func (f *frontend) Read(b []byte) (int, error) {
	n, err := f.in.Read(b)
	if err == nil {
		if n >= 6 && bytes.HasPrefix(b[n-6:n], readyForQuery) {
			f.simple.Store(false)
		}
		return n, nil
	}
	fault := f.watch.fault()
	switch {
	case fault == nil:
		return n, err
	case f.simple.Swap(false):
		return n, timeoutFault{fault}
	}
	return n, fault
}

// timeoutFault is a fault that looks like a timeout to pgx.
type timeoutFault struct{ *FaultError }

func (e timeoutFault) Unwrap() error   { return e.FaultError }
func (e timeoutFault) Timeout() bool   { return true }
func (e timeoutFault) Temporary() bool { return true }
