// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
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
	// CodeVersion when it speaks another version. proven says that the refusal
	// was made with our key, or that there is none: else it is a hint, and the
	// attempt goes on. Active only.
	Refused(s *Session, r wire.Refuse, proven bool)
	// Broken is called when the transport or an attempt ended, with the error.
	// The change of state, if there is one, follows.
	Broken(*Session, error)
}

// Session is one heartbeat session: a machine and its transport. It is used on
// the loop goroutine only. A watchdog has thousands, so it is one block of memory
// with nothing in it that only the handshake needs.
type Session struct {
	timer     Timer // when the machine wants to be called; its loop is the session's
	handler   Handler
	transport transport  // nil while there is none
	active    *activeEnd // nil on a Passive end
	m         heartbeat.Machine
	security

	remote netip.AddrPort
	kernel mono.Instant // last sign of the host's kernel besides the open transport's
	slot   int32        // in Loop.sessions

	watching bool // somebody watches the link to the peer

	// The following are for the Passive end only.

	Protected   bool // never judged by the owner
	id          uint64
	conmgr      wire.ID
	incarnation uint64
}

// activeEnd is what only the end that dials needs.
type activeEnd struct {
	DialConfig
	forged uint64     // frames that were not the peer's
	way    netip.Addr // whose link is watched
}

// noteKernel keeps a sign of life of the peer's kernel.
func (s *Session) noteKernel(at mono.Instant) { s.kernel = max(s.kernel, at) }

// begin takes the machine and lets the loop look after the session.
func (s *Session) begin(l *Loop, m *heartbeat.Machine) {
	s.m = *m
	s.timer = Timer{loop: l, index: -1, fire: s}
	l.join(s)
}

func (s *Session) loop() *Loop { return s.timer.loop }

// expired implements expirer.
func (s *Session) expired() {
	s.step(func(out *heartbeat.Output) { s.m.Tick(s.loop().now, out) })
}

func (s *Session) timeout() time.Duration { return s.m.Config().Timeout }

// step calls the machine and carries out what it asks for.
func (s *Session) step(call func(*heartbeat.Output)) {
	out := s.loop().output()
	call(out)
	s.finish(out)
}

// finish carries out what a call has asked for.
func (s *Session) finish(out *heartbeat.Output) {
	defer s.loop().release(out)
	s.carryOut(out)
	s.timer.Set(s.m.Next())
}

func (s *Session) carryOut(out *heartbeat.Output) {
	s.send(out.Frames)
	if out.Close != heartbeat.CloseNone && s.transport != nil {
		s.noteKernel(s.transport.kernelLife())
		s.transport.close(out.Close == heartbeat.CloseReset)
		s.transport = nil
	}
	if out.Dial {
		s.dial()
	}
	if out.Refused != nil {
		s.handler.Refused(s, *out.Refused, true)
	}
	for _, c := range out.Changes {
		s.followLink(heartbeat.Armed(c.To))
		s.handler.Changed(s, c)
	}
	if out.Instance || out.Signal {
		s.handler.Told(s)
	}
}

func (s *Session) send(frames []wire.Frame) {
	if s.transport == nil || len(frames) == 0 {
		return
	}
	b := s.loop().wbuf[:0]
	for i := range frames {
		at := len(b) + wire.PrefixSize
		b = wire.AppendPrefixed(b, &frames[i])
		s.seal(b[at:], frames[i].Type)
	}
	s.loop().wbuf = b[:0]
	s.transport.send(b, frames[len(frames)-1].Type == wire.TypeBye)
}

// dial opens the transport that the machine asked for. What is known at once is
// told in the next pass, so that the machine is never called from within its own
// call.
func (s *Session) dial() {
	t, err := s.connect()
	if err != nil {
		s.loop().Do(func() { s.broken(nil, err) })
		return
	}
	s.transport = t
	if d, ok := t.(*datagram); ok {
		s.loop().Do(func() { s.connected(d) })
	}
}

func (s *Session) connect() (transport, error) {
	if !s.remote.IsValid() {
		return nil, errors.New("the address is not known yet")
	}
	s.m.SetKey(s.choose(s.active.Key))
	if !s.active.Heartbeat.Datagram {
		t, err := s.loop().connect(s.active.Local, s.remote, s.timeout(), s)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	if s.key == nil {
		return nil, errors.New("UDP needs a key: expected one in heartbeat_key_file")
	}
	d, err := s.loop().openDatagram(s.active.Local, s.remote, s)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (s *Session) connected(t transport) {
	if t != s.transport {
		return
	}
	if _, tcp := t.(*stream); tcp {
		s.noteKernel(s.loop().now)
	}
	s.step(func(out *heartbeat.Output) { s.m.Connected(s.loop().now, out) })
}

func (s *Session) frame(t transport, raw []byte, f *wire.Frame, err error) {
	if t != s.transport {
		return
	}
	switch {
	case errors.Is(err, wire.ErrVersion):
		if s.keys.Keyed() {
			*s.forged()++ // who has agreed on keys speaks our version
			return
		}
		s.handler.Refused(s, wire.Refuse{Code: wire.CodeVersion, Limit: wire.Version}, s.key == nil)
	case errors.Is(err, wire.ErrType):
	case err != nil:
		if stream, ok := t.(*stream); ok {
			stream.fail(err) // the stream cannot be read any further
		}
	case s.open(raw, f):
		s.heardOn(t, f)
		s.step(func(out *heartbeat.Output) { s.m.Receive(s.loop().now, f, out) })
	}
}

// heardOn notes a sign of life on UDP, where the kernel tells none: a datagram
// that was proven. Anybody can send one that was not, and nobody can prove a
// COOKIE or that there is no such session.
func (s *Session) heardOn(t transport, f *wire.Frame) {
	unproven := f.Type == wire.TypeCookie || f.Type == wire.TypeRefuse && f.Refuse.Code == wire.CodeSession
	if d, ok := t.(*datagram); ok && !unproven {
		d.life = s.loop().now
	}
}

func (s *Session) broken(t transport, err error) {
	if t != s.transport {
		return
	}
	if t != nil {
		s.noteLife(t, err)
	}
	s.transport = nil
	s.handler.Broken(s, err)
	s.step(func(out *heartbeat.Output) {
		if givenUp(err) {
			s.m.Lost(s.loop().now, out)
		} else {
			s.m.Broken(s.loop().now, out)
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

// noteLife keeps a RST, or the ICMP that a closed UDP port gives, as a sign of
// life: the host's own kernel sends it. An unreachable host or a timeout is none.
func (s *Session) noteLife(t transport, err error) {
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) {
		s.noteKernel(s.loop().now)
	}
	s.noteKernel(t.kernelLife())
}

// KernelLife returns when the kernel of the peer's host was heard last: an
// acknowledged segment, a completed connect, a RST, or a datagram. Zero for never.
// It costs at most one getsockopt.
func (s *Session) KernelLife() mono.Instant {
	if s.transport != nil {
		s.noteKernel(s.transport.kernelLife())
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
	s.step(func(out *heartbeat.Output) { s.m.Signal(s.loop().now, signals, out) })
}

// Stop ends the session with a BYE; nothing follows.
func (s *Session) Stop(kind wire.ByeKind) {
	s.step(func(out *heartbeat.Output) { s.m.Stop(s.loop().now, kind, out) })
	s.loop().drop(s)
}

// replace ends a Passive session for a newer one of the same conmgr.
func (s *Session) replace() {
	s.step(func(out *heartbeat.Output) { s.m.Replace(s.loop().now, out) })
}

// Machine returns the session's machine, to read from.
func (s *Session) Machine() *heartbeat.Machine { return &s.m }

// Remote returns the peer's address; it is not valid before the first attempt.
func (s *Session) Remote() netip.AddrPort { return s.remote }

// Conmgr returns who opened the session: the conmgr's id, and the incarnation of
// its process. Passive only.
func (s *Session) Conmgr() (id wire.ID, incarnation uint64) { return s.conmgr, s.incarnation }

// ID returns the session's id, also after its end. Passive only.
func (s *Session) ID() uint64 { return s.id }

// DialConfig describes an Active session.
type DialConfig struct {
	// Heartbeat is what its machine goes by. Role, Nonce and Key are set by Dial;
	// Datagram chooses UDP, which needs a key.
	Heartbeat heartbeat.Config
	// Key returns the key to use for the next attempt, nil for none. It is called
	// on the loop goroutine; nil means that there never is one.
	Key func() *key.Key
	// Local is the own address to connect from; the zero value leaves it to the
	// routing table.
	Local netip.Addr
}

// Dial starts an Active session to the watchdog at addr, which may be invalid
// until SetAddr.
func (l *Loop) Dial(cfg DialConfig, addr netip.AddrPort, h Handler) *Session {
	cfg.Heartbeat.Role = heartbeat.Active
	cfg.Heartbeat.Nonce = freshNonce
	s := &Session{handler: h, active: &activeEnd{DialConfig: cfg}, remote: addr}
	s.begin(l, heartbeat.NewActive(cfg.Heartbeat, l.now))
	s.timer.Set(s.m.Next())
	return s
}
