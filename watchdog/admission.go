// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// DefaultPerAddress is how many sessions one address may have.
const DefaultPerAddress = 8

// AddressSet is what watchdog.clients and watchdog.protect give: a set that may
// depend on the host's own addresses with their networks (samehost, samenet).
type AddressSet interface {
	Contains(addr netip.Addr, own []netip.Prefix) bool
}

// Admission says who may open a session. It is a value without locks; replace
// it as a whole when the configuration or the host's addresses change.
type Admission struct {
	Clients     AddressSet     // watchdog.clients; nil lists nobody
	Protect     AddressSet     // watchdog.protect; nil protects nobody
	Own         []netip.Prefix // the host's interface addresses with their networks
	MinInterval time.Duration  // watchdog.min_heartbeat_interval
	MaxTimeout  time.Duration  // watchdog.max_heartbeat_timeout
	PerAddress  int            // sessions per address, 0: DefaultPerAddress
	Sessions    int            // watchdog.max_heartbeat_connections
}

// Counts are the sessions that live now, the asking one and those that it
// would replace not included.
type Counts struct {
	Sessions   int // of all addresses
	PerAddress int // of the asking address, IPv4-mapped or not
}

// Admit judges a HELLO. Code 0 accepts, any other is for the REFUSE together
// with limit. protected says that the session may live but must never be armed
// in the [Docket]. A HELLO that was proven with a key is not asked for its
// address here; another one from an address that is not listed learns only that.
func (a *Admission) Admit(remote netip.Addr, hello *wire.Hello, keyed bool, n Counts) (code wire.Code, limit uint32, protected bool) {
	if !remote.IsValid() || !keyed && !a.allows(remote) {
		return wire.CodeAddress, 0, false
	}
	if perAddress := a.perAddress(); n.PerAddress >= perAddress {
		return wire.CodePerAddress, uint32(perAddress), false
	}
	if n.Sessions >= a.Sessions {
		return wire.CodeFull, uint32(max(a.Sessions, 0)), false
	}
	if code, limit := a.judgeTimers(hello); code != 0 {
		return code, limit, false
	}
	return 0, 0, a.Protects(remote)
}

// judgeTimers applies the bounds. A timeout not greater than the interval is
// accepted, as the seed does; one below the shortest interval is not, since the
// agent looks at its own lateness in parts of the shortest timeout of all: one
// conmgr could make it do that all the time.
func (a *Admission) judgeTimers(hello *wire.Hello) (wire.Code, uint32) {
	interval := time.Duration(hello.IntervalMS) * time.Millisecond
	timeout := time.Duration(hello.TimeoutMS) * time.Millisecond
	if interval <= 0 || interval < a.MinInterval {
		return wire.CodeInterval, milliseconds(a.MinInterval)
	}
	if timeout <= 0 || timeout < a.MinInterval {
		return wire.CodeTimeout, milliseconds(a.MinInterval)
	}
	if timeout > a.MaxTimeout {
		return wire.CodeTimeout, milliseconds(a.MaxTimeout)
	}
	return 0, 0
}

func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), int64(^uint32(0))))
}

func (a *Admission) perAddress() int {
	if a.PerAddress > 0 {
		return a.PerAddress
	}
	return DefaultPerAddress
}

func (a *Admission) allows(remote netip.Addr) bool {
	return remote.IsValid() && a.Clients != nil && a.Clients.Contains(bareAddr(remote), a.Own)
}

// Protects reports whether an address is never armed and never killed. What is
// no address is protected.
func (a *Admission) Protects(remote netip.Addr) bool {
	return !remote.IsValid() || a.Protect != nil && a.Protect.Contains(bareAddr(remote), a.Own)
}

// bareAddr is the form in which addresses are compared: no IPv4-mapping, no zone.
func bareAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
