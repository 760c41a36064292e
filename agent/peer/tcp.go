// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// maxPending bounds what waits for a peer that does not read: a frame cut in two
// by a full socket, and a BYE behind it.
const maxPending = 2 * (wire.MaxFrame + wire.PrefixSize)

// readBudget bounds what one peer may make one pass read, in bytes.
const readBudget = 64 << 10

// stream is one non-blocking TCP connection that carries frames.
type stream struct {
	loop       *Loop
	owner      owner
	fd         int // -1 once closed
	connecting bool
	remote     netip.AddrPort
	partial    []byte       // start of a frame whose rest has not come
	pending    []byte       // rest of what did not fit into the socket
	finish     bool         // close once pending is out
	life       mono.Instant // of the peer's kernel when the connection broke
	dropped    uint64       // frames not sent because the peer does not read
}

// connect starts a connection; owner.connected or owner.broken follows.
func (l *Loop) connect(from netip.Addr, to netip.AddrPort, timeout time.Duration, o owner) (*stream, error) {
	fd, err := openSocket(unix.SOCK_STREAM, from, to)
	if err != nil {
		return nil, err
	}
	s := &stream{loop: l, owner: o, fd: fd, connecting: true, remote: to}
	setTCP(fd, timeout)
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	if err := l.add(fd, s, unix.EPOLLOUT); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// openSocket makes a socket that will connect to an address, from an own address
// when that is valid. The port is chosen with the connection (ip(7)), so that one
// address can have more connections than ports.
func openSocket(kind int, from netip.Addr, to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("create socket to %s: %w", to, err)
	}
	if !from.IsValid() {
		return fd, nil
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind to own address %s: %w", from, err)
	}
	return fd, nil
}

// adopt takes over an accepted connection.
func (l *Loop) adopt(fd int, remote netip.AddrPort, o owner) (*stream, error) {
	s := &stream{loop: l, owner: o, fd: fd, remote: remote}
	if err := l.add(fd, s, unix.EPOLLIN|unix.EPOLLRDHUP); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

// setTCP sets what every heartbeat connection needs: no waiting for more to send,
// and no data kept unacknowledged by the kernel for much longer than the timeout.
// Twice the timeout, because the kernel counts from the oldest unacknowledged
// byte, which can be older than the last frame heard: the machine judges first.
func setTCP(fd int, timeout time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(2*timeout.Milliseconds()))
}

func (s *stream) ready(events uint32) {
	if s.connecting {
		s.finishConnect()
		return
	}
	if s.finish && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.close(true)
		return
	}
	if !s.finish && events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.read(events&^unix.EPOLLIN != 0)
	}
	if s.fd >= 0 && events&unix.EPOLLOUT != 0 {
		s.flush()
	}
}

func (s *stream) finishConnect() {
	s.loop.now = clock.Now()
	errno, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	if err != nil {
		s.fail(fmt.Errorf("connect to %s: %w", s.remote, err))
		return
	}
	s.connecting = false
	s.loop.modify(s.fd, unix.EPOLLIN|unix.EPOLLRDHUP)
	s.owner.connected(s)
}

// read takes all that has come: a read that leaves room in the buffer has taken it,
// unless the end is known to follow. Frames that came before an error or an end
// are delivered before it.
func (s *stream) read(ends bool) {
	buf := s.loop.rbuf
	for budget := readBudget; budget > 0 && s.fd >= 0; {
		kept := copy(buf, s.partial)
		n, err := readNow(s.fd, buf[kept:])
		// What was read may have come after the pass was woken: an instant from
		// before it came would bring the verdict forward.
		s.loop.now = clock.Now()
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return
		case err != nil:
			s.fail(fmt.Errorf("read from %s: %w", s.remote, err))
			return
		case n == 0:
			s.fail(fmt.Errorf("read from %s: connection closed by the peer", s.remote))
			return
		}
		budget -= n
		room := kept+n < len(buf)
		s.deliver(buf[:kept+n])
		if room && !ends {
			return
		}
	}
}

// readNow and writeNow are read(2) and write(2) on a socket that is non-blocking:
// they never wait, so the scheduler is not told of them.
func readNow(fd int, b []byte) (int, error) {
	return result(unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))))
}

func writeNow(fd int, b []byte) (int, error) {
	return result(unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))))
}

func result(n, _ uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func (s *stream) deliver(b []byte) {
	s.partial = s.partial[:0]
	for s.fd >= 0 {
		raw, rest, err := wire.Split(b)
		if err != nil {
			s.fail(fmt.Errorf("read from %s: %w", s.remote, err))
			return
		}
		if raw == nil {
			s.keep(rest)
			return
		}
		b = rest
		err = wire.Parse(raw, &s.loop.frame)
		s.owner.frame(s, raw, &s.loop.frame, err)
	}
}

// keep stores the start of a frame; the memory is given back when there is none.
func (s *stream) keep(rest []byte) {
	if len(rest) == 0 {
		s.partial = nil
		return
	}
	s.partial = append(s.partial, rest...)
}

// send implements transport.
func (s *stream) send(frames []byte, goodbye bool) {
	if s.fd < 0 || s.connecting || len(frames) == 0 {
		return
	}
	if len(s.pending) > 0 {
		if len(s.pending)+len(frames) <= maxPending && goodbye {
			s.pending = append(s.pending, frames...)
			return
		}
		s.dropped++
		return
	}
	n, err := writeNow(s.fd, frames)
	switch {
	case err == unix.EAGAIN:
		s.dropped++
	case err == nil && n < len(frames):
		s.hold(frames, n)
	}
	// Any other error is seen by the next read, which reports it in order.
}

// hold keeps the rest of the frame that the socket took a part of.
func (s *stream) hold(b []byte, n int) {
	end := 0
	for end < n {
		end += wire.PrefixSize + int(b[end])<<8 + int(b[end+1])
	}
	if end > n {
		s.pending = append(s.pending, b[n:end]...)
		s.loop.modify(s.fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLOUT)
	}
	if end < len(b) {
		s.dropped++
	}
}

func (s *stream) flush() {
	n, err := unix.Write(s.fd, s.pending)
	if err != nil || n < 0 {
		return
	}
	s.pending = s.pending[n:]
	if len(s.pending) > 0 {
		return
	}
	s.pending = nil
	if s.finish {
		s.close(false)
		return
	}
	s.loop.modify(s.fd, unix.EPOLLIN|unix.EPOLLRDHUP)
}

// close implements transport: with a RST that discards what is unsent, or with a
// FIN behind it.
func (s *stream) close(reset bool) {
	if s.fd < 0 {
		return
	}
	if reset {
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	} else if len(s.pending) > 0 && !s.finish {
		s.finish = true // the owner has let go: only flush follows
		s.loop.modify(s.fd, unix.EPOLLOUT)
		return
	}
	s.loop.closeFD(s.fd)
	s.fd, s.partial, s.pending = -1, nil, nil
}

// fail closes the connection and tells the owner why.
func (s *stream) fail(err error) {
	s.life = s.kernelLife()
	s.close(true)
	s.owner.broken(s, err)
}

// kernelLife implements transport. It may be called after the end, too: tcp_info's last_ack_recv counts every segment that acknowledged something,
// which the kernel sends whatever its processes do. Zero when unknown.
func (s *stream) kernelLife() mono.Instant {
	if s.fd < 0 || s.connecting {
		return s.life
	}
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	ago := time.Duration(min(info.Last_ack_recv, info.Last_data_recv)) * time.Millisecond
	return clock.Now().Add(-ago)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneID(a.Addr().Zone())}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && addr.Is6() {
			addr = addr.WithZone(zoneName(sa.ZoneId))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func localAddr(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}
