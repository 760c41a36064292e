// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"sync"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// lifeSigns are when the kernels of client hosts were last heard on heartbeat
// connections that have ended: the connection is closed with its session, before
// the last look could see it. The zero value is ready; it is safe for concurrent
// use.
type lifeSigns struct {
	mu sync.Mutex // guards the following
	at map[netip.Addr]mono.Instant
}

// ended notes the newest sign of an address. An old one does no harm: the last
// valid frame of a later session is newer.
func (l *lifeSigns) ended(a netip.Addr, at mono.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil || len(l.at) >= maxRelations {
		l.at = make(map[netip.Addr]mono.Instant) // a lost sign only makes a host look more silent
	}
	l.at[bareAddr(a)] = max(l.at[bareAddr(a)], at)
}

// last returns the newest sign, zero for none.
func (l *lifeSigns) last(a netip.Addr) mono.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at[bareAddr(a)]
}
