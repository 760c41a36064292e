// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// stranger is a client of the test's own: a connection and a HELLO, no more.
func stranger(t *testing.T, addr netip.AddrPort, id byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		Conmgr: wire.ID{id}, Nonce: wire.ID{id}, IntervalMS: 50, TimeoutMS: 5000,
	}}
	if _, err := conn.Write(wire.AppendPrefixed(nil, &hello)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// arm acknowledges the first beat of a stranger's session, read or not.
func arm(t *testing.T, conn net.Conn, session uint64) {
	t.Helper()
	beat := wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: session, Seq: 2}, Beat: wire.Beat{Ack: 2, State: wire.StateInit}}
	if _, err := conn.Write(wire.AppendPrefixed(nil, &beat)); err != nil {
		t.Fatal(err)
	}
}

// Sessions that are admitted first and armed later count for their address: its
// bound holds for all that are armed at the end. In the total only armed ones
// count: who cannot arm his sessions must not keep others out.
func TestBoundHoldsForHellosAtOnce(t *testing.T) {
	const perAddress, asked = 3, 20
	l := startLoop(t)
	most := 0 // on the loop
	dog := recorder{admit: func(_ *wire.Hello, c Counts) Admission {
		most = max(most, c.Total)
		if c.OfAddress >= perAddress {
			return Admission{Code: wire.CodePerAddress}
		}
		return Admission{}
	}}
	ln, addr := serve(t, l, &dog)
	on(l, func() bool { ln.cfg.HalfOpen = 2 * asked; return true })
	conns := map[wire.ID]net.Conn{}
	for i := range asked {
		conns[wire.ID{byte(i + 1)}] = stranger(t, addr, byte(i+1))
	}
	eventually(t, "all HELLOs answered", func() bool {
		return on(l, func() bool { return int(ln.stats.Refused)+len(ln.byID) == asked })
	})
	if n := on(l, func() int { return most }); n != 0 {
		t.Errorf("%d sessions that are not armed count in the total, want none", n)
	}
	admitted := on(l, func() map[wire.ID]uint64 {
		ids := map[wire.ID]uint64{}
		for _, s := range ln.byID {
			ids[s.conmgr] = s.id
		}
		return ids
	})
	for conmgr, session := range admitted {
		arm(t, conns[conmgr], session)
	}
	eventually(t, "all admitted ones armed", func() bool { return dog.count(wire.StateUp) == len(admitted) })
	if n := on(l, func() int { return ln.armed }); n != perAddress {
		t.Errorf("%d sessions armed of %d that asked, want %d", n, asked, perAddress)
	}
}

// Sessions that never arm are bounded, the oldest goes first, and its books go
// with it.
func TestShakingSessionsAreBounded(t *testing.T) {
	const bound = 8 // serve's HalfOpen
	l := startLoop(t)
	var dog recorder
	ln, addr := serve(t, l, &dog)
	for i := range 3 * bound {
		stranger(t, addr, byte(i+1))
		eventually(t, "the session", func() bool {
			return on(l, func() bool {
				for _, s := range ln.byID {
					if s.conmgr == (wire.ID{byte(i + 1)}) {
						return true
					}
				}
				return false
			})
		})
	}
	type books struct{ byID, ofAddress, half int }
	got := on(l, func() books {
		return books{len(ln.byID), len(ln.byAddr[netip.MustParseAddr("127.0.0.1")]), len(ln.half)}
	})
	if want := (books{bound, bound, 0}); got != want {
		t.Errorf("kept %+v, want %+v", got, want)
	}
	on(l, func() bool {
		for _, s := range ln.byID {
			if s.conmgr[0] <= 2*bound {
				t.Errorf("session %d is kept, and newer ones were evicted", s.conmgr[0])
			}
		}
		return true
	})
}

// A stranger on UDP costs no memory, whatever he sends, until the cookie is back.
func TestStrangersCostNoMemory(t *testing.T) {
	g := newGatehouse(t)
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		Nonce: wire.ID{3}, IntervalMS: 50, TimeoutMS: 500, Cookie: [wire.CookieSize]byte{1, 2, 3},
	}}
	asked := wire.Append(nil, &hello)
	hello.Hello.Cookie = [wire.CookieSize]byte{}
	first := wire.Append(nil, &hello)
	foreign := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBye, Session: g.healthy.id, Seq: 1 << 40}})
	for name, b := range map[string][]byte{"HELLO": first, "HELLO with a forged cookie": asked, "BYE": foreign, "garbage": make([]byte, 200), "nothing": nil} {
		n := testing.AllocsPerRun(1000, func() {
			g.sock.packet(b, strangerAddr, ownAddr)
			g.loop.outgoing.n = 0
		})
		if n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
	g.check(t)
}
