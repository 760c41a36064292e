// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
)

// batchSize is how many sockets one system call destroys. More gains nothing
// that can be measured, and all answers of a batch must fit the receive buffer.
const batchSize = 64

// Result is what became of one socket.
type Result uint8

// Results.
const (
	// Skipped: not tried, because ctx ended or the connection failed before.
	Skipped Result = iota
	// Destroyed: it is gone, and its owner knows.
	Destroyed
	// Gone: the kernel has no such socket any more. That is as good.
	Gone
	// NotPermitted: CAP_NET_ADMIN is missing.
	NotPermitted
	// NotSupported: this kernel cannot destroy it (CONFIG_INET_DIAG_DESTROY).
	NotSupported
	// Refused: it was not asked of the kernel; see Destroy.
	Refused
	// Failed: another error, or the answer was lost.
	Failed
)

var resultNames = [...]string{
	"skipped", "destroyed", "gone", "not permitted", "not supported", "refused", "failed",
}

// String names the result.
func (r Result) String() string {
	if int(r) >= len(resultNames) {
		return fmt.Sprintf("result(%d)", uint8(r))
	}
	return resultNames[r]
}

// Outcome is what became of one socket, and why when it may live on.
type Outcome struct {
	Result Result
	// Err is nil with Skipped, Destroyed and Gone, otherwise an [*OpError], which
	// with Failed can be that of the whole batch.
	Err error
}

// Destroy destroys the sockets, each named by its cookie, and returns as many
// outcomes in the same order. Refused are sockets that were neither ESTABLISHED
// nor CLOSE_WAIT when they were found, that have no cookie or that [Conn.Find]
// cannot have returned.
//
// The error tells why sockets were skipped: ctx's, which it looks at between
// batches, or that of the connection, which then is of no more use (ErrBroken).
// What happens to a single socket is no error.
//
// A large number is shared with a second thread, which must have the right, too.
//
// A socket that its owner closed since it was found, and that still has data to
// send, has become an orphan; it is destroyed as well, as no request can tell.
func (c *Conn) Destroy(ctx context.Context, sockets []Socket) ([]Outcome, error) {
	outcomes := make([]Outcome, len(sockets))
	var accepted []int
	for i := range sockets {
		if err := refusal(&sockets[i]); err != nil {
			outcomes[i] = Outcome{Refused, &OpError{Op: "destroy", Object: sockets[i].String(), Kind: ErrRefused, Err: err}}
			continue
		}
		accepted = append(accepted, i)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(accepted) == 0 {
		return outcomes, nil
	}
	if err := c.proveLocked(ctx); err != nil {
		return outcomes, err
	}
	batches := slices.Collect(slices.Chunk(accepted, batchSize))
	return outcomes, c.sharedLocked(len(batches), func(l *lane, i int) error {
		return l.destroy(ctx, sockets, batches[i], outcomes)
	})
}

// refusal says why a socket must not be destroyed.
func refusal(s *Socket) error {
	switch local, remote := s.Local.Addr(), s.Remote.Addr(); {
	case !Killable.Has(s.State):
		return fmt.Errorf("state %v: expected %v", s.State, Killable)
	case s.Cookie == 0 || s.Cookie == noCookie:
		return errors.New("no cookie: expected the one that it was found with")
	case s.Family == IPv4 && local.Is4() && remote.Is4():
	case s.Family == IPv6 && local.IsValid() && remote.IsValid() && local.Is4() == remote.Is4() &&
		!local.Is4In6() && !remote.Is4In6():
	default:
		return fmt.Errorf("addresses %v and %v: expected two of %v", local, remote, s.Family)
	}
	return nil
}

// destroy destroys the sockets at the given places with one system call.
//
// The kernel works on the messages in their order, and answers those that fail
// and those that ask for it (netlink_rcv_skb). Only the last one asks: its answer
// closes the batch, and what was not answered until then was destroyed.
func (l *lane) destroy(ctx context.Context, sockets []Socket, batch []int, outcomes []Outcome) error {
	messages := make([]netlink.Message, len(batch))
	for n, i := range batch {
		messages[n] = netlink.Message{
			Header: netlink.Header{Type: typeDestroy, Flags: netlink.Request},
			Data:   destroyRequest(&sockets[i]),
		}
	}
	messages[len(messages)-1].Header.Flags |= netlink.Acknowledge
	if err := l.ready(ctx); err != nil {
		return err
	}
	sent, err := l.nl.SendMessages(messages)
	if err != nil {
		return &OpError{Op: "destroy", Err: err}
	}
	answers, err := l.answers(sent)
	for n, i := range batch {
		switch {
		case answers[n] == nil && err != nil: // nobody knows
			outcomes[i] = Outcome{Failed, err}
		default:
			outcomes[i] = outcomeOf(&sockets[i], answers[n])
		}
	}
	return err
}

// answers reads the answers to a batch: the error of each message, nil
// for none. Its own error is trouble with reading: the rest is then unknown.
func (l *lane) answers(sent []netlink.Message) ([]error, error) {
	errs := make([]error, len(sent))
	first := sent[0].Header.Sequence
	for {
		answers, err := l.nl.Receive()
		n, failed, err := answer(answers, err)
		// Numbers follow each other and may pass through zero.
		at := n - first
		switch {
		case err == nil && at >= uint32(len(sent)):
			err = fmt.Errorf("%w: answer to message %d: expected %d to %d",
				ErrMalformed, n, first, sent[len(sent)-1].Header.Sequence)
			fallthrough
		case err != nil:
			l.broken = err
			return errs, &OpError{Op: "destroy", Err: err}
		}
		errs[at] = failed
		if at == uint32(len(sent)-1) {
			return errs, nil
		}
	}
}

// answer reads one answer: which message failed with what (nil: it did
// not), or err when the answer is none.
func answer(answers []netlink.Message, err error) (seq uint32, failed, trouble error) {
	if op, ok := verdict(err); ok {
		return op.Sequence, op.Err, nil
	}
	if err != nil {
		return 0, nil, err
	}
	if len(answers) != 1 || answers[0].Header.Type != netlink.Error {
		return 0, nil, fmt.Errorf("%w: %d messages: expected one acknowledgement", ErrMalformed, len(answers))
	}
	return answers[0].Header.Sequence, nil, nil
}

// proveLocked makes sure that the kernel knows TCP sockets. One without the
// module tcp_diag answers ENOENT to a kill, too, and that must not look like
// success.
func (c *Conn) proveLocked(ctx context.Context) error {
	if c.proven {
		return nil
	}
	rejectAll := appendOp(nil, opJump, opLen, 2*opLen) // beyond the end
	err := c.lanes[0].dump(ctx, dumpRequest(Killable, false, rejectAll), func(*Socket) error { return nil })
	c.proven = err == nil
	return err
}

// outcomeOf gives the kernel's answer its meaning.
func outcomeOf(s *Socket, err error) Outcome {
	failed := func(r Result, kind error) Outcome {
		return Outcome{r, &OpError{Op: "destroy", Object: s.String(), Kind: kind, Err: err}}
	}
	switch {
	case err == nil:
		return Outcome{Result: Destroyed}
	case errors.Is(err, syscall.ENOENT):
		return Outcome{Result: Gone}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return failed(NotPermitted, ErrNotPermitted)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return failed(NotSupported, ErrNotSupported)
	}
	return failed(Failed, nil)
}
