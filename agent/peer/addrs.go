// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

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

// SetAddrs makes the listener listen on exactly these addresses: on TCP, and with
// keys on UDP too. Those it listens on already are left alone; the error names
// each one that could not be added.
func (ln *Listener) SetAddrs(want []netip.AddrPort) error {
	ln.socks = slices.DeleteFunc(ln.socks, func(s *socket) bool { return ln.closeUnless(s.fd, false, s.addr, want) })
	wantUDP := want
	if ln.ring == nil {
		wantUDP = nil
	}
	ln.packets = slices.DeleteFunc(ln.packets, func(s *packetSocket) bool { return ln.closeUnless(s.fd, true, s.addr, wantUDP) })
	var errs []error
	for _, addr := range want {
		if !slices.ContainsFunc(ln.socks, func(s *socket) bool { return s.addr == addr }) {
			errs = append(errs, ln.Add(addr))
		}
	}
	for _, addr := range wantUDP {
		if !slices.ContainsFunc(ln.packets, func(s *packetSocket) bool { return s.addr == addr }) {
			errs = append(errs, ln.addUDP(addr))
		}
	}
	return errors.Join(errs...)
}

// closeUnless closes a listening descriptor whose address is not wanted any more.
func (ln *Listener) closeUnless(fd int, datagram bool, addr netip.AddrPort, want []netip.AddrPort) (closed bool) {
	if slices.Contains(want, addr) {
		return false
	}
	ln.loop.closeFD(fd)
	ln.forgetKept(datagram, addr)
	return true
}

func (ln *Listener) addUDP(addr netip.AddrPort) error {
	fd, err := ln.claim(true, addr), error(nil)
	if fd < 0 {
		fd, err = bindUDP(addr)
	}
	if err != nil {
		return fmt.Errorf("listen on UDP %s: %w", addr, err)
	}
	s := &packetSocket{ln: ln, fd: fd, addr: localAddr(fd)}
	if err := ln.loop.add(fd, s, unix.EPOLLIN); err != nil {
		_ = unix.Close(fd)
		return err
	}
	ln.packets = append(ln.packets, s)
	ln.handOver(true, s.addr, fd)
	return nil
}

// Add listens on one more address: on TCP, and with keys on UDP too, both on the
// same port. It may be called before Run.
func (ln *Listener) Add(addr netip.AddrPort) error {
	fd, err := ln.claim(false, addr), error(nil)
	if fd < 0 {
		fd, err = bindTCP(addr)
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	s := &socket{ln: ln, fd: fd, addr: localAddr(fd)}
	if err := ln.loop.add(fd, s, unix.EPOLLIN); err != nil {
		_ = unix.Close(fd)
		return err
	}
	ln.socks = append(ln.socks, s)
	ln.handOver(false, s.addr, fd)
	return nil
}

// bindTCP makes a socket that listens on an address.
func bindTCP(addr netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err = unix.Bind(fd, sockaddr(addr)); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
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
// them cannot keep the loop from its sessions: each costs about 50 us, with the
// eviction of an older one. Nothing is judged by what a new connection brings.
const acceptBatch = 16

func (s *socket) ready(uint32) {
	s.ln.loop.now = clock.Now()
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

func (ln *Listener) closeSpare() {
	if ln.spare >= 0 {
		_ = unix.Close(ln.spare)
		ln.spare = -1
	}
}
