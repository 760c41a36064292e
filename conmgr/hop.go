// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// hop is one side of a relay: a connection in clear text, or with TLS on it.
type hop struct {
	tcp    *net.TCPConn
	secure *tls.Conn  // nil: clear text
	under  *quietConn // what secure reads from
}

// Write sends b whole.
func (h *hop) Write(b []byte) (int, error) {
	if h.secure != nil {
		return h.secure.Write(b)
	}
	return h.tcp.Write(b)
}

// CloseWrite ends this direction: the end of TLS, then FIN.
func (h *hop) CloseWrite() error {
	if h.secure != nil {
		if err := h.secure.CloseWrite(); err != nil {
			return err
		}
	}
	return h.tcp.CloseWrite()
}

// source is where a relay's direction gets its bytes from. An idle one holds no
// buffer.
type source interface {
	// receive waits until there are bytes. At the end of the stream it returns
	// io.EOF.
	receive() (chunk, error)
}

func (h *hop) source() (source, error) {
	if h.secure == nil {
		return newReceiver(h.tcp)
	}
	h.under.quiet = true
	return &secureReceiver{conn: h.secure, under: h.under}, nil
}

// secureReceiver reads from a TLS connection. Not for use by two goroutines at
// once.
type secureReceiver struct {
	conn  *tls.Conn
	under *quietConn
}

func (r *secureReceiver) receive() (chunk, error) {
	for {
		c := chunk{buf: buffers.Get().(*[bufferSize]byte)}
		n, err := r.conn.Read(c.buf[:])
		if n > 0 { // an error that came with it comes again
			c.n = n
			return c, nil
		}
		c.free()
		if !errors.Is(err, errNotReady) {
			return chunk{}, err
		}
		if err := r.under.wait(); err != nil {
			return chunk{}, err
		}
	}
}

// quietConn is the TCP connection beneath a TLS one. Once it is quiet, its Read
// returns errNotReady instead of waiting: a TLS connection cannot be asked
// whether it still holds bytes, only be read until it wants more from the
// socket, and the buffer for that is not to be held while waiting.
//
// Before, during the handshake, it gives up its turn while it waits.
type quietConn struct {
	*net.TCPConn
	raw   syscall.RawConn
	turns turns // held during the handshake, nil behind it
	quiet bool  // set before the reader starts
}

// turns bound how many handshakes compute at a time, a millisecond each. Hundreds
// come at once when applications connect anew after a fault; all of them would keep
// the heartbeat waiting for a processor until the watchdogs give this host up.
type turns chan struct{}

// newTurns leaves half of the processors to others.
func newTurns() turns { return make(turns, halfOfProcessors()) }

func (t turns) take() { t <- struct{}{} }
func (t turns) give() { <-t }

// notReady is an error that leaves a tls.Conn usable: it is temporary.
type notReady struct{}

var errNotReady net.Error = notReady{}

func (notReady) Error() string   { return "no bytes in the socket" }
func (notReady) Timeout() bool   { return false }
func (notReady) Temporary() bool { return true }

// Read implements net.Conn.
func (q *quietConn) Read(b []byte) (n int, err error) {
	switch {
	case q.turns != nil:
		q.turns.give()
		defer q.turns.take()
		return q.TCPConn.Read(b)
	case !q.quiet:
		return q.TCPConn.Read(b)
	case len(b) == 0:
		return 0, nil
	}
	rawErr := q.raw.Read(func(fd uintptr) bool {
		n, err = readOnce(int(fd), b)
		return true
	})
	switch {
	case rawErr != nil:
		return 0, rawErr
	case err == unix.EAGAIN:
		return 0, errNotReady
	}
	return n, err
}

// wait returns when the socket has bytes, or its end.
func (q *quietConn) wait() error {
	waited := false
	return q.raw.Read(func(fd uintptr) bool {
		if waited {
			return true
		}
		waited = true // what came before this call raises no event any more
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return err != unix.EAGAIN && err != unix.EINTR
	})
}
