// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

const (
	// family of netlink: NETLINK_SOCK_DIAG.
	netlinkSockDiag = 4
	// readSize is what one read takes. The kernel builds parts of a dump as large
	// as the reader's last buffer, up to 32 KiB.
	readSize = 32 << 10
	// receiveBuffer is asked for and need not be granted: a batch's answers, all
	// of them errors, take less than the usual 208 KiB.
	receiveBuffer = 1 << 20
	// answerWait ends an exchange that the kernel does not finish. It answers
	// before the request's system call returns, so nothing ever waits.
	answerWait = 10 * time.Second
	// laneCount is how many threads kill: enough for thousands in milliseconds,
	// and no more of a database's processors.
	laneCount = 2
	// maxSockets bounds the memory that one answer can take.
	maxSockets = 1 << 20
)

// Conn is a connection to the kernel's socket tables of one network namespace.
// Its methods may be called concurrently; one of them works at a time.
type Conn struct {
	mu sync.Mutex // guards the following
	// lanes kill side by side; the first one does the rest. Kernels before 6.9
	// make one wait for the other.
	lanes []*lane
	// proven: a dump has come to its end, so the kernel does know TCP sockets.
	proven bool
}

// lane is one netlink socket. It is used by one goroutine at a time.
type lane struct {
	nl *netlink.Conn
	// broken is set for good when an exchange ended in the middle.
	broken error
}

// Dial connects to the network namespace of the calling thread. It needs no
// right. ErrNotSupported: the kernel has no sock_diag at all.
func Dial() (*Conn, error) { return dial(&netlink.Config{}) }

// DialNamespace connects to the network namespace that fd, not 0, refers to (an
// open /proc/PID/ns/net or /run/netns/NAME), which can be closed afterwards. It
// needs CAP_SYS_ADMIN; killing there needs CAP_NET_ADMIN over that namespace.
func DialNamespace(fd int) (*Conn, error) {
	if fd <= 0 {
		return nil, &OpError{Op: "dial", Object: fmt.Sprintf("namespace %d", fd), Err: syscall.EBADF}
	}
	return dial(&netlink.Config{NetNS: fd})
}

func dial(cfg *netlink.Config) (*Conn, error) {
	cfg.MessageBufferSize = readSize
	c := newConn()
	for range laneCount {
		nl, err := netlink.Dial(netlinkSockDiag, cfg)
		if err != nil {
			_ = c.Close()
			var kind error
			if errors.Is(err, syscall.EPROTONOSUPPORT) {
				kind = ErrNotSupported
			}
			return nil, &OpError{Op: "dial", Kind: kind, Err: err}
		}
		_ = nl.SetReadBuffer(receiveBuffer)
		// Without it an error's answer repeats the request.
		_ = nl.SetOption(netlink.CapAcknowledge, true)
		c.lanes = append(c.lanes, &lane{nl: nl})
	}
	return c, nil
}

func newConn(lanes ...*lane) *Conn {
	return &Conn{lanes: lanes}
}

// Close ends the connection. An operation that goes on fails.
func (c *Conn) Close() error {
	var errs []error
	for _, l := range c.lanes {
		errs = append(errs, l.nl.Close())
	}
	return errors.Join(errs...)
}

// Find returns the sockets that the filter means, in no order. It looks at ctx
// before it asks and while it reads. An error comes without sockets: a part of
// them would look like all. The error is ErrFilter, ErrNotSupported, ErrTooMany,
// ErrMalformed, ErrBroken or ctx's, or another one of the kernel.
func (c *Conn) Find(ctx context.Context, f Filter) ([]Socket, error) {
	f, err := f.normal()
	if err != nil {
		return nil, err
	}
	program, err := f.program()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found pile
	err = c.lanes[0].dump(ctx, dumpRequest(f.States, f.Info, program), func(s *Socket) error {
		if !f.match(s) {
			return nil
		}
		return found.add(s)
	})
	if err != nil {
		return nil, err
	}
	c.proven = true
	return slices.Concat(found...), nil
}

// pile is a growing number of sockets. They are copied once, at the end: fresh
// memory was a seventh of the time of a dump when a slice doubled.
type pile [][]Socket

const chunkSize = 256

func (p *pile) add(s *Socket) error {
	last := len(*p) - 1
	if last < 0 || len((*p)[last]) == chunkSize {
		if last++; last == maxSockets/chunkSize {
			return ErrTooMany
		}
		*p = append(*p, make([]Socket, 0, chunkSize))
	}
	(*p)[last] = append((*p)[last], *s)
	return nil
}

// sharedLocked does n jobs, the lanes taking turns, and returns when all are
// done or a lane has failed; the others then finish the job they are at. The
// first lane works on the caller's goroutine.
func (c *Conn) sharedLocked(n int, do func(l *lane, job int) error) error {
	var next atomic.Int64
	errs := make([]error, len(c.lanes))
	work := func(at int) {
		for job := int(next.Add(1)) - 1; job < n; job = int(next.Add(1)) - 1 {
			if errs[at] = do(c.lanes[at], job); errs[at] != nil {
				next.Store(int64(n))
				return
			}
		}
	}
	var others sync.WaitGroup
	for at := 1; at < min(n, len(c.lanes)); at++ {
		others.Go(func() { work(at) })
	}
	work(0)
	others.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// dump asks for sockets and reads the answer to its end,
// unless it breaks off.
func (l *lane) dump(ctx context.Context, request []byte, each func(*Socket) error) error {
	if err := l.ready(ctx); err != nil {
		return err
	}
	sent, err := l.nl.Send(netlink.Message{
		Header: netlink.Header{Type: typeDump, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return dumpError(err)
	}
	// After an error of ours the rest is still read, so that it does not stand
	// before the next answer; ReceiveIter does that when its loop is left.
	for m, err := range l.nl.ReceiveIter() {
		if err != nil {
			return l.dumpEnded(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := takeSocket(m, sent.Header.Sequence, each); err != nil {
			return &OpError{Op: "dump", Err: err}
		}
	}
	return nil
}

// takeSocket checks one message of a dump and passes its socket on.
func takeSocket(m netlink.Message, seq uint32, each func(*Socket) error) error {
	if m.Header.Type != typeDump || m.Header.Sequence != seq {
		return fmt.Errorf("%w: message type %d number %d: expected type %d number %d",
			ErrMalformed, m.Header.Type, m.Header.Sequence, typeDump, seq)
	}
	s, err := parseSocket(m.Data)
	if err != nil {
		return err
	}
	return each(&s)
}

// dumpEnded tells the kernel's verdict, which ends the answer, from
// trouble with reading, after which the rest of the answer may still come.
func (l *lane) dumpEnded(err error) error {
	if _, ok := verdict(err); !ok {
		l.broken = err
	}
	return dumpError(err)
}

// verdict returns the error number of a netlink message; false when err is
// about something else.
func verdict(err error) (*netlink.OpError, bool) {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return nil, false
	}
	_, isErrno := op.Err.(syscall.Errno)
	return op, isErrno && op.Sequence != 0
}

// ready prepares the next exchange.
func (l *lane) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.broken != nil {
		return fmt.Errorf("%w: %w", ErrBroken, l.broken)
	}
	err := l.nl.SetReadDeadline(time.Now().Add(answerWait))
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil // a scripted kernel has no deadlines
}
