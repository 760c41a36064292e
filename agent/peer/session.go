// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Handler is told what happens to a session. Its methods are called on the loop
// goroutine.
type Handler interface {
	// Changed is called after each change of state.
	Changed(*Session, heartbeat.Change)
	// Told is called when what the peer's beats carry has changed: the instance
	// state on the Active end, the conmgr's signals on the Passive end.
	Told(*Session)
	// Refused is called when the watchdog does not accept the session, and with
	// CodeVersion when it speaks another version. Active only.
	Refused(*Session, wire.Refuse)
	// Broken is called when the transport or an attempt ended, with the error.
	// The change of state, if there is one, follows.
	Broken(*Session, error)
}

// Session is one heartbeat session: a machine and its transport. It is used on
// the loop goroutine only.
type Session struct {
	loop    *Loop
	m       *heartbeat.Machine
	handler Handler
	stream  *stream // nil while there is none
	timer   *Timer
	timeout time.Duration

	remote netip.AddrPort
	local  netip.AddrPort
	kernel mono.Instant // last sign of the host's kernel besides the open stream's

	opened    mono.Instant // Passive only
	hello     wire.Hello   // Passive only: what opened it
	id        uint64       // Passive only
	Protected bool         // Passive only: never judged by the owner
}

func (l *Loop) newSession(timeout time.Duration, h Handler) *Session {
	s := &Session{loop: l, handler: h, timeout: timeout}
	s.timer = l.NewTimer(s.expired)
	l.join(s)
	return s
}

func (s *Session) expired() {
	s.step(func(out *heartbeat.Output) { s.m.Tick(s.loop.now, out) })
}

// step calls the machine and carries out what it asks for.
func (s *Session) step(call func(*heartbeat.Output)) {
	out := s.loop.output()
	defer s.loop.release(out)
	call(out)
	s.carryOut(out)
	s.timer.Set(s.m.Next())
}

func (s *Session) carryOut(out *heartbeat.Output) {
	if s.stream != nil {
		s.stream.send(out.Frames)
	}
	if out.Close != heartbeat.CloseNone && s.stream != nil {
		s.kernel = max(s.kernel, s.stream.kernelLife())
		s.stream.close(out.Close == heartbeat.CloseReset)
		s.stream = nil
	}
	if out.Dial {
		s.dial()
	}
	if out.Refused != nil {
		s.handler.Refused(s, *out.Refused)
	}
	for _, c := range out.Changes {
		s.handler.Changed(s, c)
	}
	if out.Instance || out.Signal {
		s.handler.Told(s)
	}
}

// dial opens the transport that the machine asked for. A failure that is known
// at once is told in the next pass, so that the machine is never called from
// within its own call.
func (s *Session) dial() {
	var err error
	if !s.remote.IsValid() {
		err = errors.New("the address is not known yet")
	} else if s.stream, err = s.loop.connect(s.remote, s.timeout, s); err == nil {
		return
	}
	s.loop.Do(func() { s.broken(nil, err) })
}

func (s *Session) connected(t *stream) {
	s.kernel, s.local = s.loop.now, t.local
	s.step(func(out *heartbeat.Output) { s.m.Connected(s.loop.now, out) })
}

func (s *Session) frame(t *stream, f *wire.Frame, err error) {
	if t != s.stream {
		return
	}
	switch {
	case errors.Is(err, wire.ErrVersion):
		s.handler.Refused(s, wire.Refuse{Code: wire.CodeVersion, Limit: wire.Version})
	case err == nil:
		s.step(func(out *heartbeat.Output) { s.m.Receive(s.loop.now, f, out) })
	case !errors.Is(err, wire.ErrType):
		t.fail(err)
	}
}

func (s *Session) broken(t *stream, err error) {
	if t != s.stream {
		return
	}
	if t != nil {
		s.noteLife(t, err)
	}
	s.stream = nil
	s.handler.Broken(s, err)
	s.step(func(out *heartbeat.Output) {
		if givenUp(err) {
			s.m.Lost(s.loop.now, out)
		} else {
			s.m.Broken(s.loop.now, out)
		}
	})
}

// givenUp reports whether the own kernel ended a connection because it heard
// nothing, or has no way to the peer (tcp(7), icmp(7)).
func givenUp(err error) bool {
	for _, errno := range []unix.Errno{unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// noteLife keeps a RST as a sign of life: only the host's own kernel sends it.
// An unreachable host or a timeout is none.
func (s *Session) noteLife(t *stream, err error) {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
		s.kernel = s.loop.now
	}
	s.kernel = max(s.kernel, t.life)
}

// KernelLife returns when the kernel of the peer's host was heard last: an
// acknowledged segment, a completed connect, or a RST. Zero for never. It costs
// one getsockopt.
func (s *Session) KernelLife() mono.Instant {
	if s.stream != nil {
		s.kernel = max(s.kernel, s.stream.kernelLife())
	}
	return s.kernel
}

// SetAddr sets the address that the next attempt connects to.
func (s *Session) SetAddr(a netip.AddrPort) { s.remote = a }

// SetEager makes attempts follow every interval; see heartbeat.Machine.
func (s *Session) SetEager(eager bool) {
	s.m.SetEager(eager)
	s.timer.Set(s.m.Next())
}

// Signal sets the signals that beats carry. Active only.
func (s *Session) Signal(signals wire.Flags) {
	s.step(func(out *heartbeat.Output) { s.m.Signal(s.loop.now, signals, out) })
}

// Stop ends the session with a BYE; nothing follows.
func (s *Session) Stop(kind wire.ByeKind) {
	s.step(func(out *heartbeat.Output) { s.m.Stop(s.loop.now, kind, out) })
	s.loop.drop(s)
}

// Machine returns the session's machine, to read from.
func (s *Session) Machine() *heartbeat.Machine { return s.m }

// Remote returns the peer's address; it is not valid before the first attempt.
func (s *Session) Remote() netip.AddrPort { return s.remote }

// Local returns the own address of the present or last transport.
func (s *Session) Local() netip.AddrPort { return s.local }

// Hello returns what opened the session: the conmgr's id, incarnation and
// timers. Passive only.
func (s *Session) Hello() wire.Hello { return s.hello }

// ID returns the session's id, also after its end. Passive only.
func (s *Session) ID() uint64 { return s.id }

// Dial starts an Active session to the watchdog at addr, which may be invalid
// until SetAddr. cfg.Role is set by Dial.
func (l *Loop) Dial(cfg heartbeat.Config, addr netip.AddrPort, h Handler) *Session {
	cfg.Role = heartbeat.Active
	s := l.newSession(cfg.Timeout, h)
	s.m, s.remote = heartbeat.NewActive(cfg, l.now), addr
	s.timer.Set(s.m.Next())
	return s
}
