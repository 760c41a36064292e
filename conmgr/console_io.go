// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// buffers are lent to sockets only while bytes move, so that an idle
// application holds none.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

const bufferSize = 32 << 10

// chunk is what one read brought. Give it back with free.
type chunk struct {
	buf *[bufferSize]byte
	n   int
}

func (c *chunk) bytes() []byte { return c.buf[:c.n] }

func (c *chunk) free() {
	if c.buf != nil {
		buffers.Put(c.buf)
		c.buf = nil
	}
}

// receiver reads from one socket. Not for use by two goroutines at once.
type receiver struct {
	raw  syscall.RawConn
	got  chunk
	err  error
	step func(fd uintptr) bool // made once: a closure per read would be garbage
}

func newReceiver(c syscall.Conn) (*receiver, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &receiver{raw: raw}
	r.step = r.tryRead
	return r, nil
}

// receive waits until there are bytes. At the end of the stream it returns
// io.EOF.
func (r *receiver) receive() (chunk, error) {
	r.got, r.err = chunk{}, nil
	if err := r.raw.Read(r.step); err != nil {
		r.got.free()
		return chunk{}, err
	}
	return r.got, r.err
}

// tryRead reads once and reports false to wait for more.
func (r *receiver) tryRead(fd uintptr) bool {
	c := chunk{buf: buffers.Get().(*[bufferSize]byte)}
	c.n, r.err = readOnce(int(fd), c.buf[:])
	if r.err != nil {
		c.free()
		return r.err != unix.EAGAIN
	}
	r.got = c
	return true
}

// readOnce reads what is there: EAGAIN is nothing, io.EOF the end.
func readOnce(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// intake takes messages of known length from a socket. Its memory follows the
// bytes that really came, never what a client claims, and is given back when
// all are taken.
type intake struct {
	from *receiver
	buf  []byte // received, not taken yet
}

// take waits for n bytes and returns them; they stay valid.
func (in *intake) take(n int) ([]byte, error) {
	for len(in.buf) < n {
		c, err := in.from.receive()
		if err != nil {
			if err == io.EOF && len(in.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		in.buf = append(in.buf, c.bytes()...)
		c.free()
	}
	out := in.buf[:n:n]
	if in.buf = in.buf[n:]; len(in.buf) == 0 {
		in.buf = nil
	}
	return out, nil
}

// maxMessage bounds one message of a console client.
const maxMessage = 64 << 10

// message takes one message after startup.
func (in *intake) message() (kind byte, body []byte, err error) {
	head, err := in.take(5)
	if err != nil {
		return 0, nil, err
	}
	kind = head[0]
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxMessage {
		return kind, nil, fatal("08P01", "invalid length of message %q: %d, expected 4 to %d", kind, length, maxMessage)
	}
	body, err = in.take(int(length) - 4)
	return kind, body, err
}

// errEnded means that the application was told its end already.
var errEnded = errors.New("the application was told its end")

const (
	sendTimeout = 30 * time.Second       // a client that does not read
	endGrace    = 100 * time.Millisecond // for a write that is under way at the end
	lingerTime  = 2 * time.Second        // for the client to close after its end
)

// stream is the socket of the console.
type stream interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// outlet is the writing side of a console session. The session sends whole
// messages; at a fault any goroutine may end it, and never waits: who holds
// the lock then writes the notice.
type outlet struct {
	conn stream
	raw  syscall.RawConn

	mu     sync.Mutex // guards the following, and the order of writes
	broken bool       // a message was cut short: nothing can follow

	notice atomic.Pointer[[]byte] // set once, by end
	done   atomic.Bool            // the notice was written
}

func newOutlet(conn stream) (*outlet, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &outlet{conn: conn, raw: raw}, nil
}

// send writes whole messages.
func (o *outlet) send(b []byte) error {
	err := o.sendLocked(b)
	o.finish() // an end that came meanwhile found the lock taken
	return err
}

func (o *outlet) sendLocked(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended() {
		return errEnded
	}
	_ = o.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	if o.ended() { // the deadline of linger was just overwritten
		return errEnded
	}
	if _, err := o.conn.Write(b); err != nil {
		o.broken = true
		return err
	}
	return nil
}

// end writes the notice behind what was sent, then FIN. Call linger next.
func (o *outlet) end(notice []byte) {
	if o.notice.CompareAndSwap(nil, &notice) {
		o.finish()
	}
}

// retired is in the place of the notice of an outlet that is not ended any more:
// its session has become one of another kind, which is told in other ways.
var retired = new([]byte)

// retire makes end do nothing from now on. It reports false when the session was
// ended before.
func (o *outlet) retire() bool { return o.notice.CompareAndSwap(nil, retired) }

func (o *outlet) ended() bool {
	notice := o.notice.Load()
	return notice != nil && notice != retired
}

// tell, insist and release make an outlet the holder of its session.
func (o *outlet) tell(notice []byte) { o.end(notice) }
func (o *outlet) insist()            {}
func (o *outlet) release()           { o.linger() }

// linger bounds what is left of an ended session: a write that is under way,
// and the reader, which ends when the client closes.
func (o *outlet) linger() {
	if !o.done.Load() {
		_ = o.conn.SetWriteDeadline(time.Now().Add(endGrace))
	}
	_ = o.conn.SetReadDeadline(time.Now().Add(lingerTime))
}

// finish writes a pending notice unless another goroutine holds the lock,
// which then calls finish itself.
func (o *outlet) finish() {
	notice := o.notice.Load()
	if notice == nil || notice == retired || o.done.Load() || !o.mu.TryLock() {
		return
	}
	defer o.mu.Unlock()
	if o.done.Swap(true) {
		return
	}
	_ = o.raw.Control(func(fd uintptr) {
		if !o.broken {
			// MSG_MORE: the notice and the FIN leave in one segment.
			_, _ = quickSend(int(fd), *notice, unix.MSG_MORE)
		}
		_ = quickFinish(int(fd))
	})
}

// drain reads until the client closes, so that what was sent last is not
// destroyed by a reset, but no longer than lingerTime.
func drain(conn stream, in *intake) {
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
	const most = 1 << 20
	for n := 0; n < most; {
		c, err := in.from.receive()
		if err != nil {
			return
		}
		n += c.n
		c.free()
	}
}

// reset closes a connection with RST, whatever is on its way.
func reset(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = conn.Close()
}
