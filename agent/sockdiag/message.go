// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Message types and numbers of the kernel (linux/sock_diag.h, inet_diag.h).
const (
	// typeDump is TCPDIAG_GETSOCK, the older of the two requests for a dump. It
	// walks over the kernel's table once for both families, where
	// SOCK_DIAG_BY_FAMILY takes one walk each; "ss" goes by it as well.
	typeDump    = 18
	typeDestroy = 21 // SOCK_DESTROY

	protocolTCP = 6

	attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
	attrInfo     = 2 // INET_DIAG_INFO

	// noCookie stands for any socket with the addresses: never sent.
	noCookie = ^uint64(0)

	sockIDLen  = 48                 // struct inet_diag_sockid
	dumpLen    = 4 + sockIDLen + 8  // struct inet_diag_req
	requestLen = 8 + sockIDLen      // struct inet_diag_req_v2
	replyLen   = 4 + sockIDLen + 20 // struct inet_diag_msg
	attrLen    = 4
)

// dumpRequest is the request for all sockets of both families that the program
// accepts.
func dumpRequest(states States, info bool, program []byte) []byte {
	b := make([]byte, 4+sockIDLen, dumpLen+attrLen+len(program))
	if info {
		b[3] = 1 << (attrInfo - 1)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(states))
	b = append(b, 0, 0, 0, 0)
	if len(program) == 0 {
		return b
	}
	b = binary.NativeEndian.AppendUint16(b, uint16(attrLen+len(program)))
	b = binary.NativeEndian.AppendUint16(b, attrBytecode)
	return append(b, program...)
}

// destroyRequest names the socket as the kernel has named it.
func destroyRequest(s *Socket) []byte {
	b := append(make([]byte, 0, requestLen), uint8(s.Family), protocolTCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(AllStates))
	b = binary.BigEndian.AppendUint16(b, s.Local.Port())
	b = binary.BigEndian.AppendUint16(b, s.Remote.Port())
	b = appendAddr(b, s.Family, s.Local.Addr())
	b = appendAddr(b, s.Family, s.Remote.Addr())
	b = binary.NativeEndian.AppendUint32(b, s.Interface)
	b = binary.NativeEndian.AppendUint32(b, uint32(s.Cookie))
	return binary.NativeEndian.AppendUint32(b, uint32(s.Cookie>>32))
}

// appendAddr appends the 16 bytes of an address; those of an AF_INET6 socket are
// mapped when they are IPv4.
func appendAddr(b []byte, f Family, a netip.Addr) []byte {
	if f == IPv4 {
		four := a.As4()
		return append(append(b, four[:]...), make([]byte, 12)...)
	}
	sixteen := a.As16()
	return append(b, sixteen[:]...)
}

// parseSocket reads one answer to a dump: a struct inet_diag_msg and attributes,
// of which unknown ones are skipped.
func parseSocket(b []byte) (s Socket, err error) {
	if len(b) < replyLen {
		return s, fmt.Errorf("%w: socket of %d bytes: at least %d", ErrMalformed, len(b), replyLen)
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	s = Socket{
		Family: Family(b[0]), State: State(b[1]),
		Interface: u32(40), Cookie: uint64(u32(44)) | uint64(u32(48))<<32,
		Timer:     Timer{Kind: TimerKind(b[2]), Retries: b[3], Expires: time.Duration(u32(52)) * time.Millisecond},
		RecvQueue: u32(56), SendQueue: u32(60), UID: u32(64), Inode: u32(68),
	}
	if s.Family != IPv4 && s.Family != IPv6 {
		return s, fmt.Errorf("%w: socket of %v", ErrMalformed, s.Family)
	}
	s.Local = netip.AddrPortFrom(parseAddr(s.Family, b[8:24]), binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(parseAddr(s.Family, b[24:40]), binary.BigEndian.Uint16(b[6:]))
	s.Info, err = findInfo(b[replyLen:])
	return s, err
}

func parseAddr(f Family, b []byte) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// findInfo walks over attributes: length and type, 2 bytes each, then the value,
// padded to 4.
func findInfo(b []byte) (info *Info, err error) {
	for len(b) >= attrLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrLen || n > len(b) {
			return nil, fmt.Errorf("%w: attribute of %d bytes where %d are left", ErrMalformed, n, len(b))
		}
		if binary.NativeEndian.Uint16(b[2:]) == attrInfo {
			info = parseInfo(b[attrLen:n])
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return info, nil
}
