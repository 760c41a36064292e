// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Port is the range of one port.
func Port(p uint16) PortRange { return PortRange{p, p} }

func (r PortRange) has(p uint16) bool { return r.First <= p && p <= r.Last }

// Filter says which sockets are meant. All of its parts must hold; an empty part
// holds for every socket, so the zero Filter means all TCP sockets of the
// namespace. IPv4 addresses and prefixes mean mapped ones, too.
type Filter struct {
	// Peers are the remote addresses: in any of these prefixes. See [PeerFilter]
	// for a single one.
	Peers []netip.Prefix
	// Locals are the local addresses, one of these, without zones. An unspecified
	// address (a listener's 0.0.0.0) is refused, as no connection has it: leave
	// Locals empty for any.
	Locals []netip.Addr
	// LocalPorts are the local ports, in any of these ranges.
	LocalPorts []PortRange
	// Scope is the index of the interface that link-local addresses of Peers and
	// Locals stand for: the same address on another interface is another host.
	// 0: any interface. It says nothing about other addresses.
	Scope uint32
	// States are the states; 0 means all.
	States States
	// Info asks for [Socket.Info], which costs the kernel about as much again as
	// the rest of the answer.
	Info bool
}

// PeerFilter is the filter for all sockets of one peer. A zone must be that of
// an interface of the calling thread's network namespace, by name or number; a
// link-local address must have one.
func PeerFilter(addr netip.Addr) (Filter, error) {
	zone := addr.Zone()
	addr = addr.WithZone("").Unmap()
	if !addr.IsValid() || addr.IsUnspecified() {
		return Filter{}, fmt.Errorf("%w: peer %v: expected the address of a host", ErrFilter, addr)
	}
	f := Filter{Peers: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}
	if !scoped(addr) {
		return f, nil
	}
	if zone == "" {
		return Filter{}, fmt.Errorf("%w: peer %v: expected a zone with a link-local address", ErrFilter, addr)
	}
	var err error
	if f.Scope, err = scopeOf(zone); err != nil {
		return Filter{}, fmt.Errorf("%w: peer %v: %v", ErrFilter, addr, err)
	}
	return f, nil
}

// scopeOf returns the index of the interface that a zone names.
func scopeOf(zone string) (uint32, error) {
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index), nil
	}
	n, err := strconv.ParseUint(zone, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("zone %q: expected an interface's name or index", zone)
	}
	return uint32(n), nil
}

// scoped reports whether an address means something on its interface only.
func scoped(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.IsLinkLocalUnicast() }

// normal returns the filter with plain addresses, or why it is refused.
func (f Filter) normal() (Filter, error) {
	peers := make([]netip.Prefix, 0, len(f.Peers))
	for _, p := range f.Peers {
		q, ok := unmapPrefix(p)
		if !ok {
			return f, fmt.Errorf("%w: peer %v: expected an address prefix", ErrFilter, p)
		}
		peers = append(peers, q)
	}
	locals := make([]netip.Addr, 0, len(f.Locals))
	for _, a := range f.Locals {
		if !a.IsValid() || a.Zone() != "" || a.Unmap().IsUnspecified() {
			return f, fmt.Errorf("%w: local address %v: expected that of a connection, without zone", ErrFilter, a)
		}
		locals = append(locals, a.Unmap())
	}
	for _, r := range f.LocalPorts {
		if r.First > r.Last {
			return f, fmt.Errorf("%w: ports %d-%d: expected first <= last", ErrFilter, r.First, r.Last)
		}
	}
	f.Peers, f.Locals = peers, locals
	if f.States == 0 {
		f.States = AllStates
	}
	return f, nil
}

// unmapPrefix turns ::ffff:192.0.2.0/120 into 192.0.2.0/24 and clears the bits
// behind the prefix.
func unmapPrefix(p netip.Prefix) (netip.Prefix, bool) {
	if !p.IsValid() {
		return p, false
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// match decides a normal filter once more, here. The kernel has done so before:
// what it let through by mistake must not be killed.
func (f Filter) match(s *Socket) bool {
	return f.States.Has(s.State) &&
		(len(f.LocalPorts) == 0 || slices.ContainsFunc(f.LocalPorts, func(r PortRange) bool { return r.has(s.Local.Port()) })) &&
		(len(f.Peers) == 0 || slices.ContainsFunc(f.Peers, func(p netip.Prefix) bool {
			return p.Contains(s.Remote.Addr()) && f.onScope(p.Addr(), s)
		})) &&
		(len(f.Locals) == 0 || slices.ContainsFunc(f.Locals, func(a netip.Addr) bool {
			return a == s.Local.Addr() && f.onScope(a, s)
		}))
}

func (f Filter) onScope(a netip.Addr, s *Socket) bool {
	return f.Scope == 0 || !scoped(a) || s.Interface == f.Scope
}
