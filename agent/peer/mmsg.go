// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// packetBatch is how many datagrams one system call moves.
const packetBatch = 64

// packetRoom is the room for one datagram: one byte more than the largest frame,
// so that a longer one is known by its length and dropped.
const packetRoom = wire.MaxFrame + 1

// controlRoom holds one in6_pktinfo, the larger of the two.
const controlRoom = 40

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// The two calls below never wait (MSG_DONTWAIT), so the scheduler is not told of
// them: it would look for other work meanwhile, which costs more than the calls.

// packets are the buffers of a batch. Everything in it is reused; the kernel sees
// it only during a system call.
type packets struct {
	msgs    [packetBatch]mmsghdr
	iovs    [packetBatch]unix.Iovec
	names   [packetBatch]unix.RawSockaddrInet6 // large enough for both families
	control [packetBatch][controlRoom]byte
	bytes   [packetBatch][packetRoom]byte
	n       int // filled, for sending
}

// newPackets returns buffers whose headers point to each other.
func newPackets() *packets {
	p := new(packets)
	for i := range p.msgs {
		p.iovs[i].Base = &p.bytes[i][0]
		h := &p.msgs[i].hdr
		h.Iov, h.Iovlen = &p.iovs[i], 1
		h.Name = (*byte)(unsafe.Pointer(&p.names[i]))
		h.Control = &p.control[i][0]
	}
	return p
}

// receive fills the batch from a socket and returns how many datagrams came.
func (p *packets) receive(fd int) (int, error) {
	for i := range p.msgs {
		h := &p.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlRoom)
		h.Flags = 0
		p.iovs[i].SetLen(packetRoom)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.msgs[0])), packetBatch, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// packet returns the i-th received datagram with the sender's address and the own
// address that it was sent to.
func (p *packets) packet(i int) (b []byte, from netip.AddrPort, to netip.Addr) {
	m := &p.msgs[i]
	from = rawAddr(&p.names[i])
	return p.bytes[i][:m.n], from, destination(p.control[i][:min(int(m.hdr.Controllen), controlRoom)])
}

// add puts one datagram into the batch for sending.
func (p *packets) add(frame []byte, to netip.AddrPort, from netip.Addr) {
	i := p.n
	p.n++
	h := &p.msgs[i].hdr
	p.iovs[i].SetLen(copy(p.bytes[i][:], frame))
	h.Namelen = putRawAddr(&p.names[i], to)
	h.SetControllen(putSource(p.control[i][:], from))
}

// send sends the batch and empties it. What the kernel does not take at once is
// lost, as on the network.
func (p *packets) send(fd int) {
	for done := 0; done < p.n; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&p.msgs[done])), uintptr(p.n-done), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			done++ // this one; the others may have another fate
			continue
		}
		done += int(n)
	}
	p.n = 0
}

func rawAddr(r *unix.RawSockaddrInet6) netip.AddrPort {
	if r.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(r))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swap(v4.Port))
	}
	return addrPort(&unix.SockaddrInet6{Port: int(swap(r.Port)), ZoneId: r.Scope_id, Addr: r.Addr})
}

func putRawAddr(r *unix.RawSockaddrInet6, a netip.AddrPort) uint32 {
	if a.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(r))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swap(a.Port()), Addr: a.Addr().As4()}
		return unix.SizeofSockaddrInet4
	}
	*r = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swap(a.Port()), Addr: a.Addr().As16(), Scope_id: zoneID(a.Addr().Zone())}
	return unix.SizeofSockaddrInet6
}

// swap turns a port from or into network byte order.
func swap(port uint16) uint16 {
	b := *(*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// destination reads the address that a datagram was sent to from its IP_PKTINFO
// or IPV6_PKTINFO (ip(7), RFC 3542 section 6).
func destination(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr)
	}
	return netip.Addr{}
}

// putSource writes the own address to send from, and returns the length of the
// control message. Without it a socket that is bound to the wildcard answers from
// whatever address the route prefers.
func putSource(control []byte, from netip.Addr) int {
	if !from.IsValid() {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	data := control[unix.CmsgLen(0):]
	if from.Is4() {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		*(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])) = unix.Inet4Pktinfo{Spec_dst: from.As4()}
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	*(*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])) = unix.Inet6Pktinfo{Addr: from.As16()}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}
