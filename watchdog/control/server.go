// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/unixsock"
)

// SocketName is the socket's name in the agent's state directory.
const SocketName = "control.sock"

const (
	maxClients    = 8
	questionLimit = 5 * time.Second
	answerLimit   = 30 * time.Second
)

// Order is a pause of kills, or its end when For is 0.
type Order struct {
	For    time.Duration
	By     string // who asks: never empty
	Reason string // what for; may be empty
}

// Handler is the agent. Its methods may be called at the same time, by several
// goroutines; an error is told to the client and means that nothing was done.
type Handler interface {
	// Status returns the agent's status.
	Status(context.Context) (Status, error)
	// Sessions calls each for every session; an error of it ends that.
	Sessions(ctx context.Context, each func(*Session) error) error
	// Pause suspends kills, or allows them again. A warning is told beside the
	// status: it is done, but not all of it.
	Pause(context.Context, Order) (warning string, err error)
}

// Server answers on a control socket. Create it with [Listen].
type Server struct {
	handler  Handler
	log      *slog.Logger
	listener net.Listener
	allowed  func(uid uint32) bool
	patience time.Duration // questionLimit

	slots   chan struct{} // one for each client that is answered
	clients sync.WaitGroup
}

// Listen makes the socket. The caller runs it, or closes it.
func Listen(path string, h Handler, log *slog.Logger) (*Server, error) {
	l, err := unixsock.Listen(path)
	if err != nil {
		return nil, err
	}
	return &Server{
		handler: h, log: log, listener: l, slots: make(chan struct{}, maxClients), patience: questionLimit,
		allowed: func(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) },
	}, nil
}

// Close removes the socket. It may be called twice.
func (s *Server) Close() error { return s.listener.Close() }

// acceptPause follows a failed accept: there may be no descriptors left.
const acceptPause = 100 * time.Millisecond

// Run answers until ctx ends; the socket is gone then, and so is everybody who asked.
func (s *Server) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer s.clients.Wait()
	defer cancel()
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	for ctx.Err() == nil {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			s.clients.Go(func() { s.serve(ctx, conn.(*net.UnixConn)) })
		case errors.Is(err, net.ErrClosed):
			return
		default:
			s.log.Error("cannot accept on the control socket", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		}
	}
}

// serve answers one question.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(s.patience))
	_ = conn.SetWriteDeadline(time.Now().Add(s.patience + answerLimit))
	out := &answerer{w: bufio.NewWriter(conn)}
	peer, err := unixsock.PeerOf(conn)
	switch {
	case err != nil || !s.allowed(peer.UID):
		s.log.Warn("control socket: refused", "uid", peer.UID, "pid", peer.PID, "err", err)
		out.fail(errors.New("only root and the user of pgwatchdog may ask"))
		return
	case !s.enter():
		out.fail(fmt.Errorf("busy: %d others are being answered", maxClients))
		return
	}
	defer s.leave()
	line, err := readLine(bufio.NewReaderSize(conn, maxQuestion), maxQuestion)
	if err != nil {
		out.fail(fmt.Errorf("the question: %w", err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if err := s.answer(ctx, out, line, userName(peer.UID)); err != nil {
		out.fail(err)
	}
}

func (s *Server) enter() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Server) leave() { <-s.slots }

// answer does what a question asks for. An error was not told yet.
func (s *Server) answer(ctx context.Context, out *answerer, line []byte, who string) error {
	q, err := parseQuestion(line)
	if err != nil {
		return err
	}
	warning := ""
	if q.Do == DoPause || q.Do == DoResume {
		if q.By != "" {
			who += " for " + q.By
		}
		if warning, err = s.handler.Pause(ctx, Order{For: q.For(), By: who, Reason: q.Reason}); err != nil {
			return err
		}
	}
	status, err := s.handler.Status(ctx)
	if err != nil {
		return err
	}
	status.Warning = warning
	out.put(Answer{Status: &status})
	if q.Do == DoSessions {
		err = s.handler.Sessions(ctx, func(session *Session) error {
			out.put(Answer{Session: session})
			return out.err
		})
	}
	if err != nil {
		return err
	}
	out.put(Answer{End: true})
	return out.flush()
}

// userName is how logs and records call a user.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// answerer writes answers until the first error.
type answerer struct {
	w   *bufio.Writer
	err error
}

func (a *answerer) put(answer Answer) {
	line, err := appendLine(nil, answer)
	if err == nil && len(line) > maxAnswer {
		err = fmt.Errorf("an answer of %d bytes: expected at most %d", len(line), maxAnswer)
	}
	if err == nil && a.err == nil {
		_, err = a.w.Write(line)
	}
	a.err = errors.Join(a.err, err)
}

func (a *answerer) flush() error {
	a.err = errors.Join(a.err, a.w.Flush())
	return a.err
}

// fail ends an answer with an error. Whether anybody hears that is not known.
func (a *answerer) fail(err error) {
	a.err = nil
	a.put(Answer{Error: err.Error()})
	_ = a.flush()
}
