// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// listener is a listening socket as the kernel shows it.
func listener(addr string) sockdiag.Socket {
	s := sockdiag.Socket{Family: sockdiag.IPv4, State: sockdiag.Listen, Local: netip.MustParseAddrPort(addr)}
	if s.Local.Addr().Is6() {
		s.Family = sockdiag.IPv6
	}
	return s
}

// TestReach: what counts is configured and listened on, both.
func TestReach(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, configured, listening string // separated by spaces
		covered, strange            string
	}{
		{"one address", "10.99.0.2:5432", "10.99.0.2:5432", "10.99.0.2:5432", "10.99.0.200:5432 10.99.0.2:5433"},
		{"another cluster beside it", "10.99.0.2:5432", "10.99.0.2:5432 10.99.0.200:5432", "10.99.0.2:5432", "10.99.0.200:5432"},
		{"everywhere", "0.0.0.0:5432 [::]:5432", "0.0.0.0:5432 [::]:5432", "10.99.0.2:5432 [fd99::2]:5432", "10.99.0.2:5433"},
		// The instance could not bind 0.0.0.0, because another cluster was first.
		{"not bound", "0.0.0.0:5432 [::]:5432", "10.99.0.200:5432 [::]:5432", "[fd99::2]:5432", "10.99.0.200:5432 10.99.0.2:5432"},
		{"nobody listens", "10.99.0.2:5432", "", "", "10.99.0.2:5432"},
		{"zone", "[fe80::2%eth0]:5432", "[fe80::2]:5432", "[fe80::2]:5432", "[fe80::3]:5432"},
	} {
		s := scope{heartbeat: 27545}
		for a := range strings.FieldsSeq(test.configured) {
			s.listens = append(s.listens, netip.MustParseAddrPort(a))
		}
		var listening []sockdiag.Socket
		for a := range strings.FieldsSeq(test.listening) {
			listening = append(listening, listener(a))
		}
		r := s.reach(listening)
		for a := range strings.FieldsSeq(test.covered) {
			if s := heardAgo(a, clientAddr, 0); !r.covers(&s) {
				t.Errorf("%s: %s is not covered", test.name, a)
			}
		}
		for a := range strings.FieldsSeq(test.strange) {
			if s := heardAgo(a, clientAddr, 0); r.covers(&s) {
				t.Errorf("%s: %s is covered", test.name, a)
			}
		}
	}
}

// TestReachMapped: the IPv4 client of a dual-stack listener has a socket of the
// listener's family; one of another family is somebody else's.
func TestReachMapped(t *testing.T) {
	t.Parallel()
	r := scope{listens: []netip.AddrPort{netip.MustParseAddrPort("[::]:5432")}}.reach([]sockdiag.Socket{listener("[::]:5432")})
	s := heardAgo(pgAddr, clientAddr, 0)
	if r.covers(&s) {
		t.Error("an IPv4 socket is not of a listener at ::")
	}
	s.Family = sockdiag.IPv6
	if !r.covers(&s) {
		t.Error("a mapped socket is not covered")
	}
}

// TestReachLinkLocal: the same address on another interface is another host's.
func TestReachLinkLocal(t *testing.T) {
	t.Parallel()
	l := listener("[fe80::2]:5432")
	l.Interface = 2
	r := scope{listens: []netip.AddrPort{netip.MustParseAddrPort("[fe80::2%eth0]:5432")}}.reach([]sockdiag.Socket{l})
	s := heardAgo("[fe80::2]:5432", "[fe80::1]:40000", 0)
	for device, want := range map[uint32]bool{2: true, 3: false} {
		if s.Interface = device; r.covers(&s) != want {
			t.Errorf("interface %d: covered %v", device, !want)
		}
	}
}

// TestReachFilter: the kernel is asked for no more than needed, and heartbeats
// are out of reach even when their port is named.
func TestReachFilter(t *testing.T) {
	t.Parallel()
	one := scope{listens: []netip.AddrPort{netip.MustParseAddrPort(pgAddr)}, heartbeat: 27545}
	pooled := one
	pooled.ports = []uint16{6432, 27545}
	for _, test := range []struct {
		scope scope
		want  string
	}{
		{one, "[10.99.0.2] [{5432 5432}]"},
		{pooled, "[] [{5432 5432} {6432 6432}]"},
		{scope{heartbeat: 5432, listens: one.listens}, "[] []"},
	} {
		r := test.scope.reach([]sockdiag.Socket{listener(pgAddr)})
		f := r.filter(sockdiag.Filter{})
		if got := fmt.Sprint(f.Locals, f.LocalPorts); got != test.want {
			t.Errorf("filter %s: want %s", got, test.want)
		}
	}
	if r := (scope{heartbeat: 27545, ports: []uint16{27545}}).reach(nil); !r.empty() {
		t.Errorf("%+v: want nothing within reach", r)
	}
}
