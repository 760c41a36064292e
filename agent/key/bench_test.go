// SPDX-License-Identifier: Apache-2.0

package key

import (
	"net/netip"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func BenchmarkSealBeat(b *testing.B) {
	c, _ := mustPair(b)
	frame := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Seq: 1}})
	b.ReportAllocs()
	for b.Loop() {
		c.Seal(frame)
	}
}

// A beat with the instance state, as a conmgr receives it.
func BenchmarkAcceptBeatWithState(b *testing.B) {
	c, w := mustPair(b)
	frame := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Flags: wire.FlagState, Seq: 1}})
	w.Seal(frame)
	b.ReportAllocs()
	for b.Loop() {
		c.window = Window{}
		if err := c.Accept(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// A HELLO of a stranger who names a key that exists.
func BenchmarkOpenHelloForged(b *testing.B) {
	r := mustRing(b)
	f := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Auth: wire.AuthHMAC, Seq: 1}, Hello: wire.Hello{Key: r.First().ID()}}
	frame := wire.Append(nil, &f)
	client := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.OpenHello(frame, &f.Hello, client); err != ErrSecret {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewSession(b *testing.B) {
	k := mustRing(b).First()
	b.ReportAllocs()
	for b.Loop() {
		_ = NewSession(Watchdog, k, handshake)
	}
}

func BenchmarkCookieCheck(b *testing.B) {
	c := NewCookies([32]byte{1})
	remote := netip.MustParseAddrPort("[2001:db8::1]:5000")
	cookie := c.Make(remote, wire.ID{1}, 1e12)
	b.ReportAllocs()
	for b.Loop() {
		if !c.Check(cookie, remote, wire.ID{1}, 1e12) {
			b.Fatal("own cookie not taken")
		}
	}
}
