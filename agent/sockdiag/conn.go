// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
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
	// maxSockets bounds the memory that one answer can take.
	maxSockets = 1 << 20
)

// Conn is a connection to the kernel's socket tables of one network namespace.
// Its methods may be called concurrently; one exchange goes on at a time.
type Conn struct {
	mu sync.Mutex // guards the following
	nl *netlink.Conn
	// answers has the families of which a dump has come to its end: the kernel
	// does know their TCP sockets.
	answers map[Family]bool
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
	nl, err := netlink.Dial(netlinkSockDiag, cfg)
	if err != nil {
		var kind error
		if errors.Is(err, syscall.EPROTONOSUPPORT) {
			kind = ErrNotSupported
		}
		return nil, &OpError{Op: "dial", Kind: kind, Err: err}
	}
	_ = nl.SetReadBuffer(receiveBuffer)
	// Without it an error's answer repeats the request.
	_ = nl.SetOption(netlink.CapAcknowledge, true)
	return newConn(nl), nil
}

func newConn(nl *netlink.Conn) *Conn {
	return &Conn{nl: nl, answers: make(map[Family]bool)}
}

// Close ends the connection. An exchange that goes on fails.
func (c *Conn) Close() error { return c.nl.Close() }

// Find returns the sockets that the filter means, in no order. It looks at ctx
// between families and while it reads. An error comes without sockets: a part of
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
	var found []Socket
	for _, family := range f.families() {
		request := dumpRequest(family, f.States, f.Info, program)
		err := c.dumpLocked(ctx, family, request, func(s *Socket) error {
			if !f.match(s) {
				return nil
			}
			if len(found) == maxSockets {
				return ErrTooMany
			}
			found = append(found, *s)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// dumpLocked asks for the sockets of one family and reads the answer to its end,
// unless it breaks off.
func (c *Conn) dumpLocked(ctx context.Context, f Family, request []byte, each func(*Socket) error) error {
	if err := c.readyLocked(ctx); err != nil {
		return err
	}
	sent, err := c.nl.Send(netlink.Message{
		Header: netlink.Header{Type: typeDump, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return dumpError("dump", f, err)
	}
	// After an error of ours the rest is still read, so that it does not stand
	// before the next answer; ReceiveIter does that when its loop is left.
	for m, err := range c.nl.ReceiveIter() {
		if err != nil {
			return c.dumpEndedLocked(f, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := takeSocket(m, sent.Header.Sequence, f, each); err != nil {
			return &OpError{Op: "dump", Object: f.String(), Err: err}
		}
	}
	c.answers[f] = true
	return nil
}

// takeSocket checks one message of a dump and passes its socket on.
func takeSocket(m netlink.Message, seq uint32, f Family, each func(*Socket) error) error {
	if m.Header.Type != typeDump || m.Header.Sequence != seq {
		return fmt.Errorf("%w: message type %d number %d: expected type %d number %d",
			ErrMalformed, m.Header.Type, m.Header.Sequence, typeDump, seq)
	}
	s, err := parseSocket(m.Data)
	if err != nil {
		return err
	}
	if s.Family != f {
		return fmt.Errorf("%w: socket of %v", ErrMalformed, s.Family)
	}
	return each(&s)
}

// dumpEndedLocked tells the kernel's verdict, which ends the answer, from
// trouble with reading, after which the rest of the answer may still come.
func (c *Conn) dumpEndedLocked(f Family, err error) error {
	if _, ok := verdict(err); !ok {
		c.broken = err
	}
	return dumpError("dump", f, err)
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

// readyLocked prepares the next exchange.
func (c *Conn) readyLocked(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.broken != nil {
		return fmt.Errorf("%w: %w", ErrBroken, c.broken)
	}
	err := c.nl.SetReadDeadline(time.Now().Add(answerWait))
	if errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil // a scripted kernel has no deadlines
}
