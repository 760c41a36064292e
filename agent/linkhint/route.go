// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ways looks up how a peer is reached. zone is the device that the zone of a
// link-local address names, 0 without a zone. No route is no error.
func (k *kernel) ways(peer netip.Addr, zone int) (ways, error) {
	to := peer.Unmap().WithZone("").AsSlice()
	// The entry itself, with all its next hops, instead of the one that this packet
	// would take (Linux 4.13).
	routes, err := k.routes.RouteGetWithOptions(to, &netlink.RouteGetOptions{FIBMatch: true, OifIndex: zone})
	if unreachable(err) {
		return ways{}, nil
	}
	if err == nil {
		if w, ok := parseWays(routes, zone); ok {
			return w, nil
		}
	}
	// An entry that names no device (next-hop objects, with nexthop_compat_mode
	// off), or a kernel that does not know the flag.
	routes, err = k.routes.RouteGetWithOptions(to, &netlink.RouteGetOptions{OifIndex: zone})
	// EINVAL is also the answer of a blackhole.
	if unreachable(err) || errors.Is(err, unix.EINVAL) {
		return ways{}, nil
	}
	if err != nil {
		return ways{}, fmt.Errorf("look up the route to %v: %w", peer, err)
	}
	w, _ := parseWays(routes, zone)
	return w, nil
}

// unreachable reports whether the kernel says that there is no route: none at all,
// one of the type unreachable or prohibit, a device of the zone that is gone.
func unreachable(err error) bool {
	for _, no := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.ENODEV, unix.ENETDOWN} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// parseWays reads the answer. It is false when it names no device although there
// is a route.
func parseWays(routes []netlink.Route, zone int) (w ways, ok bool) {
	if len(routes) == 0 {
		return ways{}, false
	}
	r := routes[0]
	switch r.Type {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST:
		return ways{here: true}, true
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return ways{}, true
	}
	if zone != 0 {
		return ways{devices: []int{zone}}, true
	}
	if r.LinkIndex != 0 {
		w.devices = append(w.devices, r.LinkIndex)
	}
	for _, hop := range r.MultiPath {
		if hop.LinkIndex != 0 {
			w.devices = append(w.devices, hop.LinkIndex)
		}
	}
	return w, len(w.devices) > 0
}

// zoneOf returns the device that a zone names; false: it is gone, or not there
// yet. A zone is a name or a number (RFC 4007, section 11.2).
func (t *table) zoneOf(peer netip.Addr) (index int, ok bool) {
	zone := peer.Zone()
	if zone == "" {
		return 0, true
	}
	if index := t.indexOf(zone); index != 0 {
		return index, true
	}
	n, err := strconv.Atoi(zone)
	if err != nil {
		return 0, false
	}
	_, ok = t.devices[n]
	return n, ok
}
