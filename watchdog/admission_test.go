// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// ownNets is a set that holds the networks of the host itself and one address.
type ownNets struct{ extra netip.Addr }

func (s ownNets) Contains(a netip.Addr, own []netip.Prefix) bool {
	return a == s.extra || slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) })
}

type only []netip.Addr

func (s only) Contains(a netip.Addr, _ []netip.Prefix) bool { return slices.Contains(s, a) }

func TestAdmit(t *testing.T) {
	t.Parallel()
	protected := netip.MustParseAddr("10.0.0.1")
	a := Admission{
		Clients: ownNets{netip.MustParseAddr("192.0.2.5")}, Protect: only{protected},
		Own:         []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fe80::1/64")},
		MinInterval: 100 * time.Millisecond, MaxTimeout: 10 * time.Minute, Sessions: 100,
	}
	for _, tc := range []struct {
		name              string
		addr              string
		interval, timeout uint32
		counts            Counts
		code              wire.Code
		limit             uint32
		protected         bool
	}{
		{"ok", "10.0.0.7", 1000, 3000, Counts{}, 0, 0, false},
		{"mapped", "::ffff:10.0.0.7", 1000, 3000, Counts{}, 0, 0, false},
		{"zone", "fe80::7%eth0", 1000, 3000, Counts{}, 0, 0, false},
		{"listed", "192.0.2.5", 1000, 3000, Counts{}, 0, 0, false},
		{"stranger", "192.0.2.6", 1000, 3000, Counts{}, wire.CodeAddress, 0, false},
		{"stranger learns nothing", "192.0.2.6", 0, 0, Counts{100, 8}, wire.CodeAddress, 0, false},
		{"protected", "10.0.0.1", 1000, 3000, Counts{}, 0, 0, true},
		{"protected, mapped", "::ffff:10.0.0.1", 1000, 3000, Counts{}, 0, 0, true},
		{"timeout below interval", "10.0.0.7", 1000, 500, Counts{}, 0, 0, false},
		{"bounds", "10.0.0.7", 100, 600000, Counts{99, 7}, 0, 0, false},
		{"interval too short", "10.0.0.7", 99, 3000, Counts{}, wire.CodeInterval, 100, false},
		{"interval zero", "10.0.0.7", 0, 3000, Counts{}, wire.CodeInterval, 100, false},
		{"timeout too long", "10.0.0.7", 1000, 600001, Counts{}, wire.CodeTimeout, 600000, false},
		{"timeout huge", "10.0.0.7", 1000, ^uint32(0), Counts{}, wire.CodeTimeout, 600000, false},
		{"timeout zero", "10.0.0.7", 1000, 0, Counts{}, wire.CodeTimeout, 100, false},
		{"timeout too short", "10.0.0.7", 100, 99, Counts{}, wire.CodeTimeout, 100, false},
		{"shortest", "10.0.0.7", 100, 100, Counts{}, 0, 0, false},
		{"full", "10.0.0.7", 1000, 3000, Counts{100, 0}, wire.CodeFull, 100, false},
		{"per address", "10.0.0.7", 1000, 3000, Counts{50, 8}, wire.CodePerAddress, 8, false},
	} {
		hello := wire.Hello{IntervalMS: tc.interval, TimeoutMS: tc.timeout}
		code, limit, protected := a.Admit(netip.MustParseAddr(tc.addr), &hello, false, tc.counts)
		if code != tc.code || limit != tc.limit || protected != tc.protected {
			t.Errorf("%s: code %d, limit %d, protected %v: want %d, %d, %v", tc.name, code, limit, protected, tc.code, tc.limit, tc.protected)
		}
	}
	if code, _, _ := a.Admit(netip.MustParseAddr("192.0.2.6"), &wire.Hello{IntervalMS: 1000, TimeoutMS: 3000}, true, Counts{}); code != 0 {
		t.Errorf("a stranger with a key is refused with code %d", code)
	}
	if code, _, _ := a.Admit(netip.Addr{}, &wire.Hello{}, false, Counts{}); code != wire.CodeAddress || !a.Protects(netip.Addr{}) {
		t.Error("what is no address must be refused and protected")
	}
	if code, _, _ := new(Admission).Admit(protected, &wire.Hello{}, false, Counts{}); code != wire.CodeAddress {
		t.Error("without a list somebody got in")
	}
}
