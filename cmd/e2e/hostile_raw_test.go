// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// forger sends IPv4 packets with whatever source address from a host.
type forger struct {
	fd   int
	sent atomic.Int64
}

// forge opens a raw socket on a host; IPPROTO_RAW means that we write the IP
// header ourselves (raw(7)).
func (w *world) forge(h *agenttest.Host) *forger {
	w.Helper()
	f := new(forger)
	w.must(h.Do(func() (err error) {
		f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	w.Cleanup(func() { _ = unix.Close(f.fd) })
	return f
}

// send sends what stands behind an IP header. The kernel fills in the length and
// the checksum. A full queue loses the packet, as it may.
func (f *forger) send(protocol byte, src, dst netip.Addr, behind []byte) {
	b := make([]byte, 20, 20+len(behind))
	b[0], b[8], b[9] = 0x45, 64, protocol
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	if unix.Sendto(f.fd, append(b, behind...), 0, &unix.SockaddrInet4{Addr: dst.As4()}) == nil {
		f.sent.Add(1)
	}
}

// udp sends a datagram without a checksum, which IPv4 allows (RFC 768).
func (f *forger) udp(src, dst netip.AddrPort, payload []byte) {
	f.send(unix.IPPROTO_UDP, src.Addr(), dst.Addr(), datagram(src, dst, payload))
}

func datagram(src, dst netip.AddrPort, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// reset sends a TCP segment that would end a connection if its sequence number
// were right.
func (f *forger) reset(src, dst netip.AddrPort, seq uint32) {
	const size, flagRST = 20, 4
	b := binary.BigEndian.AppendUint16(nil, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0, size/4<<4, flagRST, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := append(append(src.Addr().AsSlice(), dst.Addr().AsSlice()...), 0, unix.IPPROTO_TCP, 0, size)
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	f.send(unix.IPPROTO_TCP, src.Addr(), dst.Addr(), b)
}

// portUnreachable sends the ICMP error that a host without a socket at question's
// destination would have sent for it.
func (f *forger) portUnreachable(src, dst netip.AddrPort) {
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], 28)
	copy(ip[12:], src.Addr().AsSlice())
	copy(ip[16:], dst.Addr().AsSlice())
	b := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, append(ip, datagram(src, dst, nil)...)...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	f.send(unix.IPPROTO_ICMP, dst.Addr(), src.Addr(), b)
}

// checksum is the one of RFC 1071 over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// addresses gives a host that many more addresses of the lab's network, from
// 10.99.0.5 on, and returns them.
func (w *world) addresses(h *agenttest.Host, n int) (addrs []netip.Addr) {
	w.Helper()
	var batch string
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, 99, 0, byte(5 + i)})
		addrs = append(addrs, a)
		batch += fmt.Sprintf("address add %s/24 dev eth0\n", a)
	}
	cmd := h.Command(w.Context(), "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	_, err := cmd.Output()
	w.must(err)
	return addrs
}
