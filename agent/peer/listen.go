// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Counts is what admission weighs: armed sessions without the ones that the
// HELLO's own conmgr has.
type Counts struct {
	Total     int
	OfAddress int
}

// Admission is the answer to a HELLO.
type Admission struct {
	Code      wire.Code // 0 admits
	Limit     uint32    // goes with the code
	Protected bool      // admitted, but never judged
}

// Acceptor decides who may open a session and is told what happens to it.
type Acceptor interface {
	Handler
	// Admit weighs a HELLO.
	Admit(remote netip.AddrPort, hello *wire.Hello, c Counts) Admission
	// OtherVersion is told of a first frame in another version of the
	// protocol, which is refused.
	OtherVersion(remote netip.AddrPort)
}

// ListenConfig describes a listener.
type ListenConfig struct {
	Self        wire.ID
	Incarnation uint64
	// NewSession returns a session id that was never used before.
	NewSession func() uint64
	// HandshakeTimeout bounds the time from accept to an armed session.
	HandshakeTimeout time.Duration
	// HalfOpen bounds how many connections may be shaking hands at a time; the
	// oldest is evicted for a newer one.
	HalfOpen int
}

// Listener serves Passive sessions on any number of addresses. All its sessions
// carry one instance state.
type Listener struct {
	loop     *Loop
	cfg      ListenConfig
	acceptor Acceptor
	socks    []*socket
	instance wire.Instance
	sessions map[*Session]struct{}
	byAddr   map[netip.Addr][]*Session // the armed ones
	armed    int                       // how many those are
	silent   int                       // how many of those are late or suspect
	half     []*halfOpen               // oldest first
	spare    int                       // descriptor kept for accepting when there are none left
}

// Listen makes a listener without addresses; see [Listener.Add].
func (l *Loop) Listen(cfg ListenConfig, a Acceptor) *Listener {
	ln := &Listener{loop: l, cfg: cfg, acceptor: a, sessions: map[*Session]struct{}{}, byAddr: map[netip.Addr][]*Session{}, spare: openSpare()}
	l.listeners = append(l.listeners, ln)
	return ln
}

// openSpare keeps one descriptor in hand. When the limit is reached, it is given
// up to accept and close a connection: else the loop would spin on a listening
// socket that stays readable.
func openSpare() int {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// socket is one listening descriptor.
type socket struct {
	ln   *Listener
	fd   int
	addr netip.AddrPort
}

// Add listens on one more TCP address. It may be called before Run.
func (ln *Listener) Add(addr netip.AddrPort) error {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err := ln.bind(fd, family, addr); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s := &socket{ln: ln, fd: fd, addr: localAddr(fd)}
	if err := ln.loop.add(fd, s, unix.EPOLLIN); err != nil {
		_ = unix.Close(fd)
		return err
	}
	ln.socks = append(ln.socks, s)
	return nil
}

func (ln *Listener) bind(fd, family int, addr netip.AddrPort) error {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return err
	}
	return unix.Listen(fd, unix.SOMAXCONN)
}

// SetAddrs makes the listener listen on exactly these addresses. Those it listens
// on already are left alone; the error names each one that could not be added.
func (ln *Listener) SetAddrs(want []netip.AddrPort) error {
	var errs []error
	kept := ln.socks[:0]
	for _, s := range ln.socks {
		if slices.Contains(want, s.addr) {
			kept = append(kept, s)
		} else {
			ln.loop.closeFD(s.fd)
		}
	}
	ln.socks = kept
	for _, addr := range want {
		if !slices.Contains(ln.Addrs(), addr) {
			errs = append(errs, ln.Add(addr))
		}
	}
	return errors.Join(errs...)
}

// Addrs returns the addresses listened on, with the ports that were chosen for
// port 0.
func (ln *Listener) Addrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, s := range ln.socks {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// acceptBatch bounds how many connections one pass accepts, so that a flood of
// them cannot keep the loop from its sessions.
const acceptBatch = 64

func (s *socket) ready(uint32) {
	for range acceptBatch {
		fd, sa, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EMFILE || err == unix.ENFILE {
			s.ln.shed(s.fd)
			return
		}
		if err == unix.ECONNABORTED || err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		s.ln.accept(fd, addrPort(sa))
	}
}

// shed accepts and closes one connection with the spare descriptor.
func (ln *Listener) shed(listening int) {
	if ln.spare >= 0 {
		_ = unix.Close(ln.spare)
	}
	if fd, _, err := unix.Accept4(listening, unix.SOCK_CLOEXEC); err == nil {
		_ = unix.Close(fd)
	}
	ln.spare = openSpare()
}

func (ln *Listener) accept(fd int, remote netip.AddrPort) {
	h := &halfOpen{ln: ln, until: ln.loop.now.Add(ln.cfg.HandshakeTimeout)}
	t, err := ln.loop.adopt(fd, remote, h)
	if err != nil {
		return
	}
	h.stream = t
	h.timer = ln.loop.NewTimer(h.evict)
	h.timer.Set(h.until)
	if len(ln.half) >= ln.cfg.HalfOpen {
		ln.half[0].evict()
	}
	ln.half = append(ln.half, h)
}

// halfOpen is a connection without a HELLO yet.
type halfOpen struct {
	ln     *Listener
	stream *stream
	timer  *Timer
	until  mono.Instant
}

// leave takes h off the list: it has become a session, or is gone.
func (h *halfOpen) leave() {
	h.timer.Stop()
	for i, o := range h.ln.half {
		if o == h {
			h.ln.half = append(h.ln.half[:i], h.ln.half[i+1:]...)
			return
		}
	}
}

func (h *halfOpen) evict() {
	h.leave()
	h.stream.close(true)
}

func (h *halfOpen) connected(*stream) {}

func (h *halfOpen) broken(*stream, error) { h.leave() }

func (h *halfOpen) frame(t *stream, f *wire.Frame, err error) {
	code, limit := wire.Code(0), uint32(0)
	switch {
	case err == wire.ErrVersion:
		code, limit = wire.CodeVersion, wire.Version
		h.ln.acceptor.OtherVersion(t.remote)
	case err != nil || f.Type != wire.TypeHello:
		h.evict()
		return
	default:
		adm := h.ln.acceptor.Admit(t.remote, &f.Hello, h.ln.counts(t.remote.Addr(), f.Hello.Conmgr))
		if adm.Code == 0 {
			h.leave()
			h.ln.open(t, f, adm)
			return
		}
		code, limit = adm.Code, adm.Limit
	}
	t.send([]wire.Frame{{
		Header: wire.Header{Type: wire.TypeRefuse, Seq: 1},
		Refuse: wire.Refuse{Code: code, Limit: limit, Echo: f.Hello.Nonce},
	}})
	h.leave()
	t.close(false)
}

// open makes a session of an admitted HELLO.
func (ln *Listener) open(t *stream, hello *wire.Frame, adm Admission) {
	cfg := heartbeat.Config{
		Role:           heartbeat.Passive,
		Interval:       time.Duration(hello.Hello.IntervalMS) * time.Millisecond,
		Timeout:        time.Duration(hello.Hello.TimeoutMS) * time.Millisecond,
		ConnectTimeout: ln.cfg.HandshakeTimeout,
		Self:           ln.cfg.Self, Incarnation: ln.cfg.Incarnation,
		Instance: &ln.instance,
	}
	setTCP(t.fd, cfg.Timeout)
	s := ln.loop.newSession(cfg.Timeout, passive{ln})
	s.stream, s.remote, s.local, s.opened = t, t.remote, t.local, ln.loop.now
	s.hello, s.Protected = hello.Hello, adm.Protected
	t.owner = s
	ln.sessions[s] = struct{}{}
	s.id = ln.cfg.NewSession()
	s.step(func(out *heartbeat.Output) {
		s.m = heartbeat.NewPassive(cfg, s.id, hello, ln.loop.now, out)
	})
	ln.boundShaking()
}

// boundShaking evicts the oldest session that is still shaking hands when there
// are too many.
func (ln *Listener) boundShaking() {
	if len(ln.sessions)-ln.armed <= ln.cfg.HalfOpen {
		return
	}
	var oldest *Session
	for s := range ln.sessions {
		if s.m.State() == wire.StateInit && (oldest == nil || s.opened.Before(oldest.opened)) {
			oldest = s
		}
	}
	if oldest != nil {
		oldest.step(func(out *heartbeat.Output) { oldest.m.Replace(ln.loop.now, out) })
	}
}

func (ln *Listener) counts(addr netip.Addr, conmgr wire.ID) Counts {
	c := Counts{Total: ln.armed}
	for _, s := range ln.byAddr[addr] {
		if s.hello.Conmgr == conmgr {
			c.Total--
		} else {
			c.OfAddress++
		}
	}
	return c
}

// account keeps the numbers of armed and silent sessions.
func (ln *Listener) account(s *Session, c heartbeat.Change) {
	addr := s.remote.Addr()
	switch was, is := heartbeat.Armed(c.From), heartbeat.Armed(c.To); {
	case is && !was:
		ln.armed++
		ln.byAddr[addr] = append(ln.byAddr[addr], s)
	case was && !is:
		ln.armed--
		rest := slices.DeleteFunc(ln.byAddr[addr], func(o *Session) bool { return o == s })
		ln.byAddr[addr] = rest
		if len(rest) == 0 {
			delete(ln.byAddr, addr)
		}
	}
	ln.silent += silent(c.To) - silent(c.From)
}

func silent(s wire.State) int {
	if s == wire.StateLate || s == wire.StateSuspect {
		return 1
	}
	return 0
}

// passive stands between a Passive session and the acceptor: it keeps the
// listener's books.
type passive struct{ ln *Listener }

// Changed implements Handler. A session that becomes armed takes over from an
// older one of the same conmgr at the same address.
func (p passive) Changed(s *Session, c heartbeat.Change) {
	p.ln.account(s, c)
	if c.From == wire.StateInit && c.To == wire.StateUp {
		p.ln.acceptor.Changed(s, c)
		p.ln.replaceOlder(s)
		return
	}
	if c.To == wire.StateDown {
		p.ln.forget(s)
	}
	p.ln.acceptor.Changed(s, c)
}

// Told implements Handler.
func (p passive) Told(s *Session) { p.ln.acceptor.Told(s) }

// Refused implements Handler; a conmgr refuses nothing.
func (p passive) Refused(*Session, wire.Refuse) {}

// Broken implements Handler.
func (p passive) Broken(s *Session, err error) { p.ln.acceptor.Broken(s, err) }

func (ln *Listener) replaceOlder(by *Session) {
	for _, s := range slices.Clone(ln.byAddr[by.remote.Addr()]) {
		if s != by && s.hello.Conmgr == by.hello.Conmgr {
			s.step(func(out *heartbeat.Output) { s.m.Replace(ln.loop.now, out) })
		}
	}
}

func (ln *Listener) forget(s *Session) {
	delete(ln.sessions, s)
	ln.loop.drop(s)
}

// SetInstance sets the state that beats carry and, when more than the WAL
// position has changed, sends it to every armed session at once.
func (ln *Listener) SetInstance(i wire.Instance) {
	old := ln.instance
	ln.instance = i
	old.WAL = i.WAL
	if old == i {
		return
	}
	for s := range ln.sessions {
		s.step(func(out *heartbeat.Output) { s.m.Push(ln.loop.now, out) })
	}
}

// Sessions returns all sessions, armed or shaking hands, in no order.
func (ln *Listener) Sessions() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		for s := range ln.sessions {
			if !yield(s) {
				return
			}
		}
	}
}

// StopAll says BYE to every session and stops listening.
func (ln *Listener) StopAll(kind wire.ByeKind) {
	_ = ln.SetAddrs(nil)
	for len(ln.half) > 0 {
		ln.half[0].evict()
	}
	for s := range ln.sessions {
		s.Stop(kind)
	}
	ln.closeSpare()
}

func (ln *Listener) closeSpare() {
	if ln.spare >= 0 {
		_ = unix.Close(ln.spare)
		ln.spare = -1
	}
}
