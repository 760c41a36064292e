// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Operations of the kernel's filter (include/uapi/linux/inet_diag.h). Each is a
// struct inet_diag_bc_op{code, yes uint8; no uint16} with its argument: a
// conditional jump forward by yes or no bytes. A program accepts by arriving at
// its end, and rejects by jumping 4 bytes further.
const (
	opJump   = 1 // always takes "no"
	opSrcGE  = 2 // local port; the argument is an op with the port in "no"
	opSrcLE  = 3
	opSrc    = 7 // local address; the argument is a struct inet_diag_hostcond
	opDst    = 8
	opDevice = 9 // bound interface; the argument is its index (Linux 4.8)
)

const (
	opLen = 4
	// maxProgram keeps jumps within their 16 bits, with room to spare, and bounds
	// the kernel's check, which is quadratic.
	maxProgram = 32 << 10
)

// cond is one operation whose "yes" is the next one.
type cond struct {
	code uint8
	arg  []byte
}

// allOf holds when every condition does; anyOf when one of its members does.
type (
	allOf []cond
	anyOf []allOf
)

func (a allOf) size() int {
	n := 0
	for _, c := range a {
		n += opLen + len(c.arg)
	}
	return n
}

// size counts a jump behind each member but the last.
func (a anyOf) size() int {
	n := opLen * (len(a) - 1)
	for _, member := range a {
		n += member.size()
	}
	return n
}

// program translates a normal filter: addresses and ports, not states. Empty
// means that everything is accepted.
func (f Filter) program() ([]byte, error) {
	var clauses []anyOf
	for _, clause := range []anyOf{f.portClause(), f.peerClause(), f.localClause()} {
		if len(clause) > 0 {
			clauses = append(clauses, clause)
		}
	}
	total := 0
	for _, clause := range clauses {
		total += clause.size()
	}
	if total > maxProgram {
		return nil, fmt.Errorf("%w: %d bytes of kernel program for %d peers, %d local addresses, %d ports: at most %d",
			ErrFilter, total, len(f.Peers), len(f.Locals), len(f.LocalPorts), maxProgram)
	}
	code := make([]byte, 0, total)
	for _, clause := range clauses {
		code = clause.append(code, total+opLen)
	}
	return code, nil
}

func (f Filter) portClause() (clause anyOf) {
	for _, r := range f.LocalPorts {
		clause = append(clause, allOf{{opSrcGE, portArg(r.First)}, {opSrcLE, portArg(r.Last)}})
	}
	return clause
}

func (f Filter) peerClause() (clause anyOf) {
	for _, p := range f.Peers {
		clause = append(clause, f.onDevice(cond{opDst, hostArg(p)}, p.Addr()))
	}
	return clause
}

func (f Filter) localClause() (clause anyOf) {
	for _, a := range f.Locals {
		clause = append(clause, f.onDevice(cond{opSrc, hostArg(netip.PrefixFrom(a, a.BitLen()))}, a))
	}
	return clause
}

// onDevice adds the interface to the condition on a link-local address.
func (f Filter) onDevice(c cond, a netip.Addr) allOf {
	if f.Scope == 0 || !scoped(a) {
		return allOf{c}
	}
	return allOf{c, {opDevice, binary.NativeEndian.AppendUint32(nil, f.Scope)}}
}

// append writes the clause at the end of code. A condition that does not hold
// goes to the next member, in the last one to reject.
func (a anyOf) append(code []byte, reject int) []byte {
	end := len(code) + a.size()
	for i, member := range a {
		last := i == len(a)-1
		next := len(code) + member.size() + opLen
		if last {
			next = reject
		}
		for _, c := range member {
			size := opLen + len(c.arg)
			code = appendOp(code, c.code, size, next-len(code))
			code = append(code, c.arg...)
		}
		if !last {
			code = appendOp(code, opJump, opLen, end-len(code))
		}
	}
	return code
}

func appendOp(code []byte, op uint8, yes, no int) []byte {
	return binary.NativeEndian.AppendUint16(append(code, op, uint8(yes)), uint16(no))
}

// portArg is an operation of which only "no" counts.
func portArg(port uint16) []byte {
	return binary.NativeEndian.AppendUint16([]byte{0, 0}, port)
}

// hostArg is a struct inet_diag_hostcond{family, prefix_len uint8; port int32;
// addr} for any port (-1). An IPv4 condition holds for mapped addresses, too.
func hostArg(p netip.Prefix) []byte {
	family := IPv6
	if p.Addr().Is4() {
		family = IPv4
	}
	arg := []byte{uint8(family), uint8(p.Bits()), 0, 0}
	arg = binary.NativeEndian.AppendUint32(arg, ^uint32(0))
	return append(arg, p.Addr().AsSlice()...)
}
