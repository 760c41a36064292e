// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// portFilter accepts TCP and UDP over IPv4 and IPv6 (without extension
// headers) from or to a port. Packets start at the network header.
func portFilter(port uint16) ([]bpf.RawInstruction, error) {
	const accept, reject = 15, 16 // indexes of the returns
	jump := func(from, to int) uint8 { return uint8(to - from - 1) }
	program := []bpf.Instruction{
		0:  bpf.LoadAbsolute{Off: 0, Size: 1},
		1:  bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		2:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: jump(2, 6)},
		3:  bpf.LoadAbsolute{Off: 9, Size: 1}, // IPv4: protocol
		4:  bpf.LoadMemShift{Off: 0},          // X = length of the header
		5:  bpf.Jump{Skip: uint32(jump(5, 8))},
		6:  bpf.LoadConstant{Dst: bpf.RegX, Val: 40},
		7:  bpf.LoadAbsolute{Off: 6, Size: 1}, // IPv6: next header
		8:  bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_TCP, SkipTrue: jump(8, 10)},
		9:  bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: jump(9, reject)},
		10: bpf.LoadIndirect{Off: 0, Size: 2},
		11: bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: jump(11, accept)},
		12: bpf.LoadIndirect{Off: 2, Size: 2},
		13: bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: jump(13, accept)},
		14: bpf.Jump{Skip: uint32(jump(14, reject))},
		15: bpf.RetConstant{Val: 256},
		16: bpf.RetConstant{Val: 0},
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	return raw, nil
}

// packet is what the headers say.
type packet struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	payload          int // bytes behind the transport header
	offset           int // where they begin
}

// parsePacket reads the headers of a packet that the filter has accepted; it
// may be cut short behind them.
func parsePacket(b []byte) (p packet, ok bool) {
	var protocol byte
	var header, total int
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header, total, protocol = int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:])), b[9]
		p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 40 && b[0]>>4 == 6:
		header, total, protocol = 40, 40+int(binary.BigEndian.Uint16(b[4:])), b[6]
		p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return p, false
	}
	if len(b) < header+8 {
		return p, false
	}
	p.srcPort, p.dstPort = binary.BigEndian.Uint16(b[header:]), binary.BigEndian.Uint16(b[header+2:])
	transport := 8 // UDP
	if protocol == unix.IPPROTO_TCP {
		if len(b) < header+13 {
			return p, false
		}
		transport = int(b[header+12]>>4) * 4
	}
	p.payload, p.offset = total-header-transport, header+transport
	return p, p.payload >= 0
}
