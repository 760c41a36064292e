// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// gatehouse is a listener without sockets, with one healthy session over UDP.
type gatehouse struct {
	*Listener
	dog     *recorder
	sock    *packetSocket
	healthy *Session
	seen    [][]byte // what passed both ways, as who reads the path knows it
}

var (
	healthyAddr  = netip.MustParseAddrPort("192.0.2.1:1000")
	strangerAddr = netip.MustParseAddrPort("192.0.2.2:2000")
	ownAddr      = netip.MustParseAddr("192.0.2.9")
)

// newGatehouse opens the session as a conmgr does, by the functions that the
// loop calls for each datagram.
func newGatehouse(t testing.TB) *gatehouse {
	t.Helper()
	l, err := NewLoop(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	g := &gatehouse{dog: new(recorder)}
	next := uint64(7)
	g.Listener = l.Listen(ListenConfig{
		Self: wire.ID{9}, HandshakeTimeout: 2 * time.Second, HalfOpen: 8,
		NewSession: func() uint64 { next++; return next },
	}, g.dog)
	ring, err := key.Parse("test", []byte(ringOld))
	if err != nil {
		t.Fatal(err)
	}
	g.SetRing(ring)
	g.sock = &packetSocket{ln: g.Listener, fd: -1, locals: map[netip.Addr]*netip.Addr{}}
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		Conmgr: wire.ID{1}, Nonce: wire.ID{2}, IntervalMS: 50, TimeoutMS: 500, Key: ring.First().ID(),
	}}
	var answer wire.Frame
	for range 2 {
		raw := wire.Append(nil, &hello)
		ring.First().SealHello(raw)
		if err := wire.Parse(g.packet(raw, healthyAddr)[0], &answer); err != nil {
			t.Fatal(err)
		}
		hello.Hello.Cookie = answer.Cookie.Cookie
	}
	keys := key.NewSession(key.Conmgr, ring.First(), key.Handshake{
		Conmgr: wire.ID{1}, Watchdog: wire.ID{9}, HelloNonce: wire.ID{2}, WelcomeNonce: answer.Welcome.Nonce, Session: answer.Session,
	})
	beat := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: answer.Session, Seq: 2}, Beat: wire.Beat{Ack: 2, State: wire.StateInit}})
	keys.Seal(beat)
	g.packet(beat, healthyAddr)
	if g.healthy = g.byID[answer.Session]; g.healthy == nil || g.healthy.m.State() != wire.StateUp {
		t.Fatal("the healthy session is not armed")
	}
	return g
}

// packet delivers a datagram and returns what is sent for it.
func (g *gatehouse) packet(b []byte, from netip.AddrPort) (sent [][]byte) {
	g.sock.packet(b, from, ownAddr)
	if out := g.loop.outgoing; out != nil {
		for i := range out.n {
			sent = append(sent, bytes.Clone(out.bytes[i][:out.iovs[i].Len]))
		}
		out.n = 0
	}
	g.seen = append(append(g.seen, bytes.Clone(b)), sent...)
	return sent
}

// check fails when unproven input has done anything.
func (g *gatehouse) check(t *testing.T) {
	t.Helper()
	if len(g.byID) != 1 || len(g.shaking) != 0 || len(g.half) != 0 || len(g.byAddr) != 1 || g.armed != 1 {
		t.Fatalf("%d sessions, %d shaking, %d half-open, %d addresses, %d armed: expected the healthy one alone",
			len(g.byID), len(g.shaking), len(g.half), len(g.byAddr), g.armed)
	}
	if !heartbeat.Armed(g.healthy.m.State()) || len(g.dog.changes) != 1 || len(g.dog.told) != 0 {
		t.Fatalf("the healthy session is %v after %v", g.healthy.m.State(), g.dog.changes)
	}
}

// FuzzPackets: datagrams by whoever has no key, but reads the path and sends from
// every address, change no session, make none, and are answered with no more
// bytes than they have. Input is a list of datagrams, each behind two bytes: what
// to do with it, and its length or which seen frame to start from.
func FuzzPackets(f *testing.F) {
	for kind := range byte(8) {
		for n := range byte(5) {
			f.Add([]byte{kind, n, 0xff, 16})
		}
	}
	f.Add(append([]byte{0, 60}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, input []byte) {
		g := newGatehouse(t)
		received := g.healthy.m.Stats().Received
		for len(input) >= 2 {
			var b []byte
			from := strangerAddr
			op, n := input[0], int(input[1])
			input = input[2:]
			if op&1 != 0 {
				from = healthyAddr
			}
			if op&2 != 0 { // a seen frame, sent again or with bytes changed
				b = bytes.Clone(g.seen[n%len(g.seen)])
				for op&4 != 0 && len(input) >= 2 && input[0] != 0 && len(b) > 0 {
					b[int(input[1])%len(b)] ^= input[0]
					input = input[2:]
				}
			} else {
				b, input = bytes.Clone(input[:min(n, len(input))]), input[min(n, len(input)):]
				if op&4 != 0 && len(b) >= wire.HeaderSize { // in the healthy session's name
					copy(b, []byte{wire.Magic >> 8, wire.Magic & 0xff, wire.Version})
					binary.BigEndian.PutUint64(b[8:], g.healthy.id)
				}
			}
			size := 0
			// A cookie that was really given to its address opens the door once
			// more: that HELLO was proven.
			if replayed := from == healthyAddr && bytes.Equal(b, g.seen[2]); replayed {
				continue
			}
			for _, answer := range g.packet(b, from) {
				size += len(answer)
			}
			if size > len(b) {
				t.Fatalf("%d bytes for a question of %d", size, len(b))
			}
			g.check(t)
		}
		if n := g.healthy.m.Stats().Received; n != received {
			t.Fatalf("%d frames that nobody proved were taken", n-received)
		}
	})
}

// FuzzStream: a TCP connection with anything in it makes no session, gets one
// refusal at most, and leaves nothing behind.
func FuzzStream(f *testing.F) {
	hello := wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{IntervalMS: 50, TimeoutMS: 500}})
	newer := bytes.Clone(hello)
	newer[wire.PrefixSize+2]++
	for _, b := range [][]byte{hello, newer, hello[:9], {0xff, 0xff}, {0, 1, 2}, append(bytes.Clone(hello), hello...)} {
		f.Add(b, uint8(0))
		f.Add(b, uint8(7))
	}
	f.Fuzz(func(t *testing.T, input []byte, cut uint8) {
		g := newGatehouse(t)
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ends[0])
		g.accept(ends[1], strangerAddr)
		for len(input) > 0 && len(g.half) > 0 {
			n := min(int(cut)+1, len(input), 4096)
			if _, err := unix.Write(ends[0], input[:n]); err != nil {
				t.Fatal(err)
			}
			input = input[n:]
			g.loop.fds[ends[1]].src.ready(unix.EPOLLIN)
		}
		for len(g.half) > 0 {
			g.half[0].evict()
		}
		g.check(t)
		buf := make([]byte, 4096)
		n, _ := unix.Read(ends[0], buf)
		var refuse wire.Frame
		raw, rest, err := wire.Split(buf[:max(n, 0)])
		if n > 0 && (err != nil || len(rest) > 0 || wire.Parse(raw, &refuse) != nil || refuse.Type != wire.TypeRefuse) {
			t.Fatalf("answer % x: expected one REFUSE", buf[:n])
		}
		if len(g.loop.timers) != 2 { // of the healthy session, and the loop's own
			t.Fatalf("%d timers are left, want 2", len(g.loop.timers))
		}
	})
}
