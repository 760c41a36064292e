// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// sessionBytes bounds what one armed session over UDP takes of the heap. Resident
// it is more, and the watchdog's own books come on top: see scripts/bench/scale.
const sessionBytes = 640

// A watchdog serves thousands of sessions in little memory.
func TestSessionMemory(t *testing.T) {
	const sessions = 4000
	l, err := NewLoop(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	var next uint64
	ln := l.Listen(ListenConfig{HandshakeTimeout: testTimeout, HalfOpen: 8,
		NewSession: func() uint64 { next++; return next }}, quiet{})
	ring := mustRing(t, ringOld)
	ln.SetRing(ring)
	if err := ln.SetAddrs([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}); err != nil {
		t.Fatal(err)
	}
	c := client{t: t, sock: ln.packets[0], key: ring.First()}
	c.arm(0) // what is made once
	before := liveHeap()
	for i := range sessions {
		c.arm(i + 1)
	}
	used := liveHeap() - before
	if ln.armed != sessions+1 {
		t.Fatalf("%d sessions are armed, want %d", ln.armed, sessions+1)
	}
	t.Logf("%d bytes per session", used/sessions)
	if used/sessions > sessionBytes {
		t.Errorf("%d bytes per session, expected at most %d", used/sessions, sessionBytes)
	}
}

func liveHeap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// quiet admits everybody and keeps nothing.
type quiet struct{}

func (quiet) Changed(*Session, heartbeat.Change)  {}
func (quiet) Told(*Session)                       {}
func (quiet) Refused(*Session, wire.Refuse, bool) {}
func (quiet) Broken(*Session, error)              {}
func (quiet) TurnedAway(netip.AddrPort, error)    {}

func (quiet) Admit(netip.AddrPort, *wire.Hello, bool, Counts) Admission { return Admission{} }

// client plays the conmgr's end of many sessions without sockets of its own.
type client struct {
	t    *testing.T
	sock *packetSocket
	key  *key.Key
}

// arm opens the n-th session, from an address of its own for every eight.
func (c *client) arm(n int) {
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n / 8 >> 8), byte(n / 8)}), uint16(10000+n%8))
	to := netip.MustParseAddr("127.0.0.1")
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		IntervalMS: 1000, TimeoutMS: 3000, Key: c.key.ID(),
	}}
	binary.BigEndian.PutUint64(hello.Hello.Conmgr[:], uint64(n)+1)
	binary.BigEndian.PutUint64(hello.Hello.Nonce[:], uint64(n)+1)
	hello.Hello.Cookie = c.sock.ln.cookies.Make(from, hello.Hello.Nonce, c.sock.ln.loop.now)
	b := wire.Append(nil, &hello)
	c.key.SealHello(b)
	c.sock.ln.loop.flushPackets()
	c.sock.packet(b, from, to)
	var welcome wire.Frame
	if err := wire.Parse(c.answer(0), &welcome); err != nil || welcome.Type != wire.TypeWelcome {
		c.t.Fatalf("session %d: answered %v (%v), want WELCOME", n, welcome.Type, err)
	}
	keys := key.NewSession(key.Conmgr, c.key, key.Handshake{
		Conmgr: hello.Hello.Conmgr, Watchdog: welcome.Welcome.Watchdog, HelloNonce: hello.Hello.Nonce,
		WelcomeNonce: welcome.Welcome.Nonce, Session: welcome.Session,
	})
	b = wire.Append(nil, &wire.Frame{
		Header: wire.Header{Type: wire.TypeBeat, Session: welcome.Session, Seq: 2},
		Beat:   wire.Beat{State: wire.StateInit, Ack: 2},
	})
	keys.Seal(b)
	c.sock.packet(b, from, to)
}

// answer is the i-th datagram that waits to be sent.
func (c *client) answer(i int) []byte {
	p := c.sock.ln.loop.outgoing
	if i >= p.n {
		c.t.Fatalf("%d answers", p.n)
	}
	return p.bytes[i][:p.iovs[i].Len]
}
