// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Addresses is a set of addresses as watchdog.clients and watchdog.protect give
// it. The zero value is empty. It is not changed after ParseAddresses and may be
// used concurrently.
type Addresses struct {
	prefixes                    []netip.Prefix
	sameHost, sameNet, loopback bool
}

// ParseAddresses reads addresses, CIDR blocks and the words samehost (the host's
// own addresses), samenet (the networks it is on), both as in pg_hba.conf,
// loopback and all. A host name is refused: it would be asked for at every frame.
func ParseAddresses(words []string) (Addresses, error) {
	var a Addresses
	for _, w := range words {
		switch w {
		case "samehost":
			a.sameHost = true
		case "samenet":
			a.sameNet = true
		case "loopback":
			a.loopback = true
		case "all":
			a.prefixes = append(a.prefixes, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		default:
			p, err := parsePrefix(w)
			if err != nil {
				return Addresses{}, err
			}
			a.prefixes = append(a.prefixes, p)
		}
	}
	return a, nil
}

func parsePrefix(w string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(w); err == nil && !p.Addr().Is4In6() {
		return p.Masked(), nil
	}
	if addr, err := netip.ParseAddr(w); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	return netip.Prefix{}, fmt.Errorf("expected an address, a CIDR block, samehost, samenet, loopback or all, found %.64q", w)
}

// Contains reports whether addr, which may be IPv4-mapped, is in the set. own are
// the host's addresses with their networks, see [OwnPrefixes].
func (a Addresses) Contains(addr netip.Addr, own []netip.Prefix) bool {
	addr = addr.Unmap().WithZone("")
	if a.loopback && addr.IsLoopback() {
		return true
	}
	holds := func(p netip.Prefix) bool { return p.Contains(addr) }
	if slices.ContainsFunc(a.prefixes, holds) || a.sameNet && slices.ContainsFunc(own, holds) {
		return true
	}
	return a.sameHost && slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == addr })
}

// OwnPrefixes returns the addresses of this host with their networks, in the
// network namespace of the calling thread. They change; the caller asks again
// now and then.
func OwnPrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	var own []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ones, _ := n.Mask.Size()
				own = append(own, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
	}
	return own, nil
}
