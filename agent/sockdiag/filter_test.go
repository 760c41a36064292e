// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// runProgram is the kernel's inet_diag_bc_run, after the checks of
// inet_diag_bc_audit.
func runProgram(t *testing.T, code []byte, s *Socket) bool {
	t.Helper()
	for rest := code; len(rest) > 0; {
		yes, no := int(rest[1]), int(binary.NativeEndian.Uint16(rest[2:]))
		if yes < opLen || yes > len(rest) || yes%4 != 0 {
			t.Fatalf("op %d at %d: yes %d", rest[0], len(code)-len(rest), yes)
		}
		least := yes
		if rest[0] == opJump {
			least = opLen
		}
		if no < least || no > len(rest)+4 || no%4 != 0 {
			t.Fatalf("op %d at %d: no %d of %d bytes left", rest[0], len(code)-len(rest), no, len(rest))
		}
		rest = rest[yes:]
	}
	for rest := code; ; {
		if len(rest) == 0 {
			return true
		}
		step := int(rest[1])
		if !holds(rest, s) {
			step = int(binary.NativeEndian.Uint16(rest[2:]))
		}
		if step > len(rest) {
			return false
		}
		rest = rest[step:]
	}
}

func holds(op []byte, s *Socket) bool {
	switch op[0] {
	case opJump:
		return false
	case opSrcGE:
		return s.Local.Port() >= binary.NativeEndian.Uint16(op[6:])
	case opSrcLE:
		return s.Local.Port() <= binary.NativeEndian.Uint16(op[6:])
	case opDevice:
		return s.Interface == binary.NativeEndian.Uint32(op[4:])
	}
	addr := s.Local.Addr()
	if op[0] == opDst {
		addr = s.Remote.Addr()
	}
	family, bits := Family(op[4]), int(op[5])
	if family == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(op[12:])), bits).Contains(addr)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(op[12:])), bits).Contains(addr)
}

// The kernel's program and our own second look say the same of any socket.
func TestProgramMatchesFilter(t *testing.T) {
	addrs := []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "fd99::1", "fd99::2", "fe80::1", "fe80::2"}
	prefixes := []string{"10.0.0.1/32", "10.0.0.0/24", "0.0.0.0/0", "fd99::1/128", "fd99::/64", "fe80::1/128", "fe80::/10", "::ffff:10.0.0.2/128"}
	rng := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 5000 {
		f := Filter{Scope: uint32(rng.IntN(3))}
		for range rng.IntN(4) {
			f.Peers = append(f.Peers, netip.MustParsePrefix(prefixes[rng.IntN(len(prefixes))]))
		}
		for range rng.IntN(4) {
			f.Locals = append(f.Locals, netip.MustParseAddr(addrs[rng.IntN(len(addrs))]))
		}
		for range rng.IntN(4) {
			first := uint16(5430 + rng.IntN(4))
			f.LocalPorts = append(f.LocalPorts, PortRange{first, first + uint16(rng.IntN(3))})
		}
		f, err := f.normal()
		if err != nil {
			t.Fatal(err)
		}
		program, err := f.program()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			s := Socket{
				State: Established, Interface: uint32(rng.IntN(3)),
				Local:  netip.AddrPortFrom(netip.MustParseAddr(addrs[rng.IntN(len(addrs))]), uint16(5429+rng.IntN(8))),
				Remote: netip.AddrPortFrom(netip.MustParseAddr(addrs[rng.IntN(len(addrs))]), 1),
			}
			kernel, ours := runProgram(t, program, &s), f.match(&s)
			if kernel != ours {
				t.Fatalf("%+v\n%v on %d: kernel %t, ours %t", f, s, s.Interface, kernel, ours)
			}
			if ours {
				matched++
			}
		}
	}
	if matched < 1000 || matched > 99000 {
		t.Errorf("%d of 100000 matched: the test compares too little", matched)
	}
}

func TestFilterRefuses(t *testing.T) {
	many := make([]netip.Prefix, 3000)
	for i := range many {
		many[i] = netip.MustParsePrefix("10.0.0.1/32")
	}
	tests := []struct {
		name string
		f    Filter
	}{
		{"invalid peer", Filter{Peers: make([]netip.Prefix, 1)}},
		{"listener's address", Filter{Locals: []netip.Addr{netip.IPv4Unspecified()}}},
		{"listener's address, mapped", Filter{Locals: []netip.Addr{netip.MustParseAddr("::ffff:0.0.0.0")}}},
		{"invalid local", Filter{Locals: make([]netip.Addr, 1)}},
		{"local with zone", Filter{Locals: []netip.Addr{netip.MustParseAddr("fe80::1%1")}}},
		{"ports turned round", Filter{LocalPorts: []PortRange{{2, 1}}}},
		{"too long", Filter{Peers: many}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := new(script)
			if found, err := k.conn(t).Find(t.Context(), tt.f); !errors.Is(err, ErrFilter) || found != nil {
				t.Errorf("found %v, error %v; want ErrFilter", found, err)
			}
			if len(k.requests) != 0 {
				t.Errorf("the kernel was asked %d times", len(k.requests))
			}
		})
	}
}

func TestPeerFilter(t *testing.T) {
	tests := []struct {
		addr  string
		want  string
		scope uint32
		err   error
	}{
		{"10.0.0.1", "10.0.0.1/32", 0, nil},
		{"::ffff:10.0.0.1", "10.0.0.1/32", 0, nil},
		{"fd99::1", "fd99::1/128", 0, nil},
		{"fe80::1%12", "fe80::1/128", 12, nil},
		{"fe80::1%lo", "fe80::1/128", 1, nil},
		{"fe80::1", "", 0, ErrFilter},
		{"fe80::1%nosuch0", "", 0, ErrFilter},
		{"fe80::1%0", "", 0, ErrFilter},
		{"0.0.0.0", "", 0, ErrFilter},
		{"::", "", 0, ErrFilter},
	}
	for _, tt := range tests {
		t.Run(tt.addr, func(t *testing.T) {
			f, err := PeerFilter(netip.MustParseAddr(tt.addr))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got := fmt.Sprint(f.Peers); tt.err == nil && (got != "["+tt.want+"]" || f.Scope != tt.scope) {
				t.Errorf("peers %s scope %d, want [%s] and %d", got, f.Scope, tt.want, tt.scope)
			}
		})
	}
	if f, err := PeerFilter(netip.Addr{}); !errors.Is(err, ErrFilter) {
		t.Errorf("no address: %+v, error %v; want ErrFilter", f, err)
	}
}

func TestStates(t *testing.T) {
	if got := Killable.String(); got != "ESTABLISHED,CLOSE_WAIT" {
		t.Errorf("killable: %s", got)
	}
	if got := uint32(AllStates); got != 0xffe {
		t.Errorf("all states: %#x, want 0xffe", got)
	}
	if StatesOf(Established, CloseWait) != Killable {
		t.Error("StatesOf differs from Killable")
	}
	names := make([]string, 0, 13)
	for s := Established; s <= BoundInactive; s++ {
		names = append(names, s.String())
	}
	if len(slices.Compact(slices.Sorted(slices.Values(names)))) != 13 {
		t.Errorf("names are not distinct: %v", names)
	}
	for _, s := range []State{0, 14, 255} {
		if s.String() == "" || AllStates.Has(s) {
			t.Errorf("state %d: %q, in the set %t", s, s.String(), AllStates.Has(s))
		}
	}
}
