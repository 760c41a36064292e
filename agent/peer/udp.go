// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// receiveBuffer is asked for on the watchdog's UDP sockets, in bytes. The kernel
// gives at most net.core.rmem_max.
const receiveBuffer = 4 << 20

// datagram is conmgr's end of the UDP transport: a connected socket per session,
// so that only the watchdog's address is heard and ICMP errors are told.
type datagram struct {
	loop   *Loop
	owner  owner
	fd     int
	remote netip.AddrPort
	life   mono.Instant
}

// openDatagram makes a connected UDP socket; the caller tells the owner that it
// is connected, which takes no time here.
func (l *Loop) openDatagram(from netip.Addr, to netip.AddrPort, o owner) (*datagram, error) {
	fd, err := openSocket(unix.SOCK_DGRAM, from, to)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	d := &datagram{loop: l, owner: o, fd: fd, remote: to}
	if err := l.add(fd, d, unix.EPOLLIN); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d, nil
}

// ready implements source. ECONNREFUSED is the ICMP answer of the watchdog's own
// host: the port is closed, the host lives.
func (d *datagram) ready(uint32) {
	buf := d.loop.rbuf[:packetRoom]
	for budget := readBudget; budget > 0 && d.fd >= 0; budget -= packetRoom {
		n, err := unix.Read(d.fd, buf)
		d.loop.now = clock.Now()
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return
		case err != nil:
			d.fail(fmt.Errorf("read from %s: %w", d.remote, err))
			return
		}
		err = wire.Parse(buf[:n], &d.loop.frame)
		d.owner.frame(d, buf[:n], &d.loop.frame, err)
	}
}

func (d *datagram) fail(err error) {
	d.close(true)
	d.owner.broken(d, err)
}

// send implements transport. An error is what ICMP said of an earlier datagram,
// which the next read reports, or a full queue, which is a loss.
func (d *datagram) send(frames []byte, _ bool) {
	for len(frames) > 0 && d.fd >= 0 {
		var frame []byte
		frame, frames = nextFrame(frames)
		_, _ = unix.Write(d.fd, frame)
	}
}

func (d *datagram) close(bool) {
	if d.fd >= 0 {
		d.loop.closeFD(d.fd)
		d.fd = -1
	}
}

func (d *datagram) kernelLife() mono.Instant { return d.life }

// helloLeast is the size of a HELLO of version 1 in bytes: what is shorter gets no
// answer, so that no answer is longer than its question.
const helloLeast = wire.HeaderSize + 104

// packetSocket is one of the watchdog's UDP sockets; all its sessions share it.
type packetSocket struct {
	ln     *Listener
	fd     int
	addr   netip.AddrPort
	locals map[netip.Addr]*netip.Addr // the addresses that sessions were asked at
}

// endpoint is the watchdog's end of the UDP transport of one session. It answers
// from the address that it was asked at.
type endpoint struct {
	sock    *packetSocket
	session *Session
	local   *netip.Addr // one of sock.locals
}

// bindUDP makes a socket on an address that tells at which address each datagram
// arrived.
func bindUDP(addr netip.AddrPort) (int, error) {
	family, level, option := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	if addr.Addr().Is4() {
		family, level, option = unix.AF_INET, unix.IPPROTO_IP, unix.IP_PKTINFO
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	err = unix.SetsockoptInt(fd, level, option, 1)
	if err == nil {
		err = unix.Bind(fd, sockaddr(addr))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// batchesPerPass bounds what one pass reads from one socket, so that a flood
// cannot keep the loop from its timers.
const batchesPerPass = 32

// ready implements source.
func (s *packetSocket) ready(uint32) {
	l := s.ln.loop
	if l.received == nil {
		l.received = newPackets()
	}
	for range batchesPerPass {
		n, err := l.received.receive(s.fd)
		if err != nil {
			return // EAGAIN: all read; an ICMP error is of no session in particular
		}
		l.now = clock.Now()
		for i := range n {
			b, from, to := l.received.packet(i)
			s.packet(b, from, to)
		}
		if n < packetBatch {
			return
		}
	}
}

// packet takes one datagram. What belongs to no session costs nothing but its
// parsing, and a HELLO the cookie's check.
func (s *packetSocket) packet(b []byte, from netip.AddrPort, to netip.Addr) {
	f := &s.ln.loop.frame
	err := wire.Parse(b, f)
	switch {
	case err == wire.ErrVersion && f.Type == wire.TypeHello && len(b) >= helloLeast:
		s.ln.acceptor.TurnedAway(from, err)
		s.refuse(f.Hello.Nonce, from, to, nil, wire.CodeVersion, wire.Version)
	case err != nil:
		s.ln.stats.Malformed++
	case f.Type == wire.TypeHello:
		s.hello(b, f, from, to)
	default:
		session := s.ln.byID[f.Session]
		if session == nil || session.remote != from {
			s.ln.stats.Foreign++
			if session == nil && f.Type == wire.TypeBeat {
				s.refuse(wire.EchoOf(&f.Header), from, to, nil, wire.CodeSession, 0)
			}
			return
		}
		if e, ok := session.transport.(*endpoint); ok {
			session.frame(e, b, f, nil)
		}
	}
}

// hello answers a HELLO: with a cookie until the sender has proven its address.
func (s *packetSocket) hello(b []byte, f *wire.Frame, from netip.AddrPort, to netip.Addr) {
	ln := s.ln
	if !ln.cookies.Check(f.Hello.Cookie, from, f.Hello.Nonce, ln.loop.now) {
		ln.stats.Cookies++
		s.answer(&wire.Frame{
			Header: wire.Header{Type: wire.TypeCookie, Seq: 1},
			Cookie: wire.Cookie{Cookie: ln.cookies.Make(from, f.Hello.Nonce, ln.loop.now), Echo: f.Hello.Nonce},
		}, from, to, nil)
		return
	}
	old := ln.shaking[from]
	if old != nil && old.m.Nonce() == f.Hello.Nonce {
		old.frame(old.transport, b, f, nil) // the WELCOME was lost
		return
	}
	k, code, limit, adm := ln.judge(b, f, from)
	if code != 0 {
		s.refuse(f.Hello.Nonce, from, to, k, code, limit)
		return
	}
	if old != nil { // only now: a cookie proves an address, but not a key
		old.replace()
	}
	ln.open(&endpoint{sock: s, local: s.own(to)}, from, f, k, adm)
}

// own returns the one copy of an own address. A host has few, so they are kept as
// long as the socket.
func (s *packetSocket) own(addr netip.Addr) *netip.Addr {
	if s.locals[addr] == nil {
		if s.locals == nil {
			s.locals = map[netip.Addr]*netip.Addr{}
		}
		s.locals[addr] = &addr
	}
	return s.locals[addr]
}

func (s *packetSocket) refuse(echo wire.ID, from netip.AddrPort, to netip.Addr, k *key.Key, code wire.Code, limit uint32) {
	s.answer(&wire.Frame{
		Header: wire.Header{Type: wire.TypeRefuse, Seq: 1},
		Refuse: wire.Refuse{Code: code, Limit: limit, Echo: echo},
	}, from, to, k)
}

// answer sends one frame outside a session, sealed when there is a key. It is
// never longer than the HELLO or BEAT that it answers.
func (s *packetSocket) answer(f *wire.Frame, to netip.AddrPort, from netip.Addr, k *key.Key) {
	b := wire.Append(s.ln.loop.wbuf[:0], f)
	if k != nil && f.Type == wire.TypeRefuse {
		k.SealRefuse(b)
	}
	s.ln.loop.queue(s.fd, b, to, from)
}

// queue puts a datagram into the batch that the pass sends at its end.
func (l *Loop) queue(fd int, frame []byte, to netip.AddrPort, from netip.Addr) {
	if l.outgoing == nil {
		l.outgoing = newPackets()
	}
	if l.outgoingFD != fd || l.outgoing.n == packetBatch {
		l.flushPackets()
	}
	l.outgoingFD = fd
	l.outgoing.add(frame, to, from)
}

func (l *Loop) flushPackets() {
	if l.outgoing != nil && l.outgoing.n > 0 {
		l.outgoing.send(l.outgoingFD)
	}
}

// send implements transport.
func (e *endpoint) send(frames []byte, _ bool) {
	for len(frames) > 0 {
		var frame []byte
		frame, frames = nextFrame(frames)
		e.sock.ln.loop.queue(e.sock.fd, frame, e.session.remote, *e.local)
	}
}

// close implements transport: there is no connection to end.
func (e *endpoint) close(bool) {}

// kernelLife implements transport: over UDP only the conmgr is heard.
func (e *endpoint) kernelLife() mono.Instant { return 0 }
