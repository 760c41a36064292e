// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net"
	"strconv"
)

// zoneID returns the interface index of an IPv6 zone, which is a name or a
// number; 0 when there is no such interface.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// zoneName returns the zone of an interface index: its number, which needs no
// look-up and cannot change its meaning while the address is in use.
func zoneName(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
