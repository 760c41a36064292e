// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	ringOld = "old " + "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	ringNew = "new " + "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

func mustRing(t *testing.T, lines ...string) *key.Ring {
	t.Helper()
	r, err := key.Parse("test", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serveKeyed starts a watchdog end with keys on an address, TCP and UDP.
func serveKeyed(t *testing.T, l *Loop, r *recorder, ring *key.Ring, at string) (*Listener, netip.AddrPort) {
	t.Helper()
	ln, addr := serve(t, l, r)
	addr = netip.AddrPortFrom(netip.MustParseAddr(at), addr.Port())
	err := on(l, func() error {
		ln.SetRing(ring)
		return ln.SetAddrs([]netip.AddrPort{addr})
	})
	if err != nil {
		t.Fatal(err)
	}
	return ln, addr
}

func dialKeyed(l *Loop, addr netip.AddrPort, id byte, ring *key.Ring, udp bool, r *recorder) *Session {
	cfg := activeConfig(id)
	cfg.Datagram = udp
	return on(l, func() *Session {
		return l.Dial(DialConfig{Heartbeat: cfg, Key: ring.First}, addr, r)
	})
}

// transports runs a test over both.
func transports(t *testing.T, test func(t *testing.T, udp bool)) {
	for name, udp := range map[string]bool{"tcp": false, "udp": true} {
		t.Run(name, func(t *testing.T) { test(t, udp) })
	}
}

func armedBoth(t *testing.T, dog, man *recorder) {
	t.Helper()
	eventually(t, "both ends armed", func() bool {
		_, a := man.saw(wire.StateUp, wire.ReasonArmed)
		_, b := dog.saw(wire.StateUp, wire.ReasonArmed)
		return a && b
	})
}

func TestKeyedSession(t *testing.T) {
	transports(t, func(t *testing.T, udp bool) {
		l := startLoop(t)
		var dog, man recorder
		ring := mustRing(t, ringOld)
		ln, addr := serveKeyed(t, l, &dog, ring, "127.0.0.1")
		s := dialKeyed(l, addr, 1, ring, udp, &man)
		armedBoth(t, &dog, &man)
		state := wire.Instance{Attribute: wire.AttributePrimary, Status: wire.StatusUp, SystemID: 9, Generation: 4}
		l.Do(func() { ln.SetInstance(state) })
		eventually(t, "the pushed state", func() bool {
			return on(l, func() bool { return s.Machine().Instance() == state })
		})
		l.Do(func() { s.Stop(wire.ByeStop) })
		eventually(t, "the BYE", func() bool { _, ok := dog.saw(wire.StateDown, wire.ReasonStop); return ok })
		if n := on(l, func() int {
			return len(ln.byID) + len(ln.configs.shared) + len(ln.unarmed) + len(ln.shaking) + len(ln.byAddr)
		}); n != 0 {
			t.Errorf("the listener still keeps %d entries of the session that ended", n)
		}
	})
}

func TestKeyIsRequired(t *testing.T) {
	ring := mustRing(t, ringOld)
	for name, tt := range map[string]struct {
		dogs, mans *key.Ring
		want       error
		proven     bool // the refusal counts: the conmgr has no key to expect a proof with
	}{
		"conmgr has none":   {ring, nil, key.ErrMissing, true},
		"watchdog has none": {nil, ring, key.ErrOwnNone, false},
		"unknown id":        {ring, mustRing(t, ringNew), key.ErrUnknown, false},
		"other secret":      {ring, mustRing(t, "old "+strings.Fields(ringNew)[1]), key.ErrSecret, false},
		"other address":     {mustRing(t, ringOld+" 192.0.2.0/24"), ring, key.ErrAddress, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLoop(t)
			var dog, man recorder
			_, addr := serveKeyed(t, l, &dog, tt.dogs, "127.0.0.1")
			dialKeyed(l, addr, 1, tt.mans, false, &man)
			eventually(t, "the refusal", func() bool {
				man.mu.Lock()
				defer man.mu.Unlock()
				return len(man.refused) > 0 && tt.proven || len(man.hinted) > 0 && !tt.proven
			})
			dog.mu.Lock()
			defer dog.mu.Unlock()
			if !slices.ContainsFunc(dog.turned, func(err error) bool { return errors.Is(err, tt.want) }) {
				t.Errorf("the watchdog was told %v, want %v", dog.turned, tt.want)
			}
			if len(dog.changes) != 0 {
				t.Errorf("there was a session: %v", dog.changes)
			}
		})
	}
}

func TestNoUDPWithoutKey(t *testing.T) {
	l := startLoop(t)
	var dog, man recorder
	ln, addr := serve(t, l, &dog)
	if n := on(l, func() int { return len(ln.packets) }); n != 0 {
		t.Errorf("%d UDP sockets are open without a key", n)
	}
	dialKeyed(l, addr, 1, nil, true, &man)
	eventually(t, "the reason", func() bool {
		man.mu.Lock()
		defer man.mu.Unlock()
		return len(man.broken) > 0 && strings.Contains(man.broken[0].Error(), "heartbeat_key_file")
	})
}

// A socket bound to the wildcard answers from the address that it was asked at:
// conmgr's connected socket hears nothing else.
func TestAnswersFromTheAskedAddress(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog recorder
	_, addr := serveKeyed(t, l, &dog, ring, "0.0.0.0")
	for i, at := range []string{"127.0.0.1", "127.0.0.7", "127.1.2.3"} {
		var man recorder
		dialKeyed(l, netip.AddrPortFrom(netip.MustParseAddr(at), addr.Port()), byte(i+1), ring, true, &man)
		eventually(t, "armed at "+at, func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })
	}
}

func TestUDPOverIPv6(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog, man recorder
	_, addr := serveKeyed(t, l, &dog, ring, "::")
	dialKeyed(l, netip.AddrPortFrom(netip.IPv6Loopback(), addr.Port()), 1, ring, true, &man)
	armedBoth(t, &dog, &man)
}

// The closed port's ICMP is a sign of life of the host and the end of the attempt.
func TestUDPAgentGone(t *testing.T) {
	manLoop, dogLoop := startLoop(t), startLoop(t)
	ring := mustRing(t, ringOld)
	var dog, man recorder
	ln, addr := serveKeyed(t, dogLoop, &dog, ring, "127.0.0.1")
	s := dialKeyed(manLoop, addr, 1, ring, true, &man)
	armedBoth(t, &dog, &man)
	dogLoop.Do(func() { _ = ln.SetAddrs(nil) }) // as the kernel does for a killed process
	eventually(t, "the refusal", func() bool {
		man.mu.Lock()
		defer man.mu.Unlock()
		return slices.ContainsFunc(man.broken, func(err error) bool { return errors.Is(err, unix.ECONNREFUSED) })
	})
	life, last := on(manLoop, s.KernelLife), on(manLoop, s.Machine().LastValid)
	if life.Before(last) {
		t.Errorf("the host's kernel was heard at %d, want after %d", life, last)
	}
}

// An agent that is back before anything was sent to it leaves no closed port
// behind: conmgr learns from it that the session is gone, inside the timeout.
func TestUDPAgentRestarted(t *testing.T) {
	manLoop, dogLoop := startLoop(t), startLoop(t)
	ring := mustRing(t, ringOld)
	var dog, man recorder
	ln, addr := serveKeyed(t, dogLoop, &dog, ring, "127.0.0.1")
	s := dialKeyed(manLoop, addr, 1, ring, true, &man)
	armedBoth(t, &dog, &man)
	first := on(manLoop, func() uint64 { return s.Machine().Session() })
	dogLoop.Do(func() {
		for _, old := range ln.byID {
			old.timer.Stop() // as if it never was
		}
		clear(ln.byID)
		clear(ln.byAddr)
		ln.armed, ln.silent = 0, 0
	})
	eventually(t, "another session", func() bool {
		return on(manLoop, func() bool {
			m := s.Machine()
			return m.Session() != first && m.Session() != 0 && m.State() == wire.StateUp
		})
	})
	if n := man.count(wire.StateDown); n != 0 {
		t.Errorf("%d verdicts about an agent that was restarted, want none", n)
	}
}

// Strangers on UDP cost no memory: without the right cookie there is only an
// answer, shorter than the question.
func TestStrangersOnUDP(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog recorder
	ln, addr := serveKeyed(t, l, &dog, ring, "127.0.0.1")
	conn, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		Conmgr: wire.ID{1}, Nonce: wire.ID{2}, IntervalMS: 50, TimeoutMS: 500, Key: ring.First().ID(),
	}}
	question := wire.Append(nil, &hello)
	ring.First().SealHello(question)
	buf := make([]byte, 2048)
	for range 3 {
		if _, err := conn.Write(question); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		var f wire.Frame
		if err := wire.Parse(buf[:n], &f); err != nil || f.Type != wire.TypeCookie || n > len(question) {
			t.Fatalf("answer of %d bytes: %v %v, want a COOKIE of at most %d", n, f.Type, err, len(question))
		}
	}
	beat := wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: 77, Seq: 5}}
	question = wire.Append(nil, &beat)
	if _, err := conn.Write(question); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var f wire.Frame
	if err := wire.Parse(buf[:n], &f); err != nil || f.Refuse.Code != wire.CodeSession || f.Refuse.Echo != wire.EchoOf(&beat.Header) || n > len(question) {
		t.Fatalf("answer of %d bytes to a BEAT of no session: %v %+v", n, err, f.Refuse)
	}
	for _, junk := range [][]byte{{}, {1}, make([]byte, 600), question[:60], append([]byte("xx"), question...)} {
		if _, err := conn.Write(junk); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the junk is counted", func() bool {
		return on(l, func() bool { return ln.stats.Malformed >= 5 && ln.stats.Cookies == 3 })
	})
	if n := on(l, func() int { return len(ln.byID) + len(ln.shaking) }); n != 0 {
		t.Errorf("%d sessions kept for strangers, want none", n)
	}
}

// Frames that somebody else puts into the path change nothing.
func TestForgedFramesAreDropped(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog, man recorder
	ln, addr := serveKeyed(t, l, &dog, ring, "127.0.0.1")
	s := dialKeyed(l, addr, 1, ring, true, &man)
	armedBoth(t, &dog, &man)
	forged := on(l, func() uint64 {
		for _, d := range ln.byID {
			bye := wire.Append(nil, &wire.Frame{
				Header: wire.Header{Type: wire.TypeBye, Session: d.id, Seq: 1 << 40}, Bye: wire.Bye{Kind: wire.ByeStop},
			})
			var f wire.Frame
			_ = wire.Parse(bye, &f)
			d.frame(d.transport, bye, &f, nil) // as if it came from the right address
			return d.forged
		}
		return 0
	})
	if forged != 1 {
		t.Errorf("%d forged frames counted, want 1", forged)
	}
	before := on(l, func() uint64 { return s.Machine().Stats().Received })
	eventually(t, "beats go on", func() bool {
		return on(l, func() uint64 { return s.Machine().Stats().Received }) > before+3
	})
	if n := dog.count(wire.StateDown) + man.count(wire.StateDown); n != 0 {
		t.Errorf("%d verdicts, want none", n)
	}
}

// What anybody can send in the watchdog's name to a living session is no sign of
// life of its host, and no refusal to tell.
func TestForgedAnswersToConmgr(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog, man recorder
	_, addr := serveKeyed(t, l, &dog, ring, "127.0.0.1")
	s := dialKeyed(l, addr, 1, ring, true, &man)
	armedBoth(t, &dog, &man)
	forge := func(f wire.Frame, version byte) {
		raw := wire.Append(nil, &f)
		raw[2] = version
		err := wire.Parse(raw, &f)
		s.frame(s.transport, raw, &f, err) // as if it came from the right address
	}
	type seen struct {
		life   mono.Instant
		forged uint64
	}
	got := on(l, func() seen {
		d := s.transport.(*datagram)
		d.life = 0
		forge(wire.Frame{Header: wire.Header{Type: wire.TypeRefuse}, Refuse: wire.Refuse{Code: wire.CodeKey, Echo: s.m.Nonce()}}, 1)
		forge(wire.Frame{Header: wire.Header{Type: wire.TypeRefuse}, Refuse: wire.Refuse{Echo: s.m.Nonce()}}, 2)
		forge(wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: s.m.Session(), Seq: 1 << 40}}, 1)
		forge(wire.Frame{Header: wire.Header{Type: wire.TypeCookie}, Cookie: wire.Cookie{Echo: s.m.Nonce()}}, 1)
		return seen{d.life, s.forged}
	})
	if want := (seen{0, 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	man.mu.Lock()
	defer man.mu.Unlock()
	if len(man.hinted)+len(man.refused) != 0 {
		t.Errorf("told of refusals %v %v, want none", man.hinted, man.refused)
	}
}

// A repeated HELLO is proven like the first one: else who reads the path could
// move the sequence of a session that is shaking hands.
func TestForgedRepetitionOfHello(t *testing.T) {
	l := startLoop(t)
	ring := mustRing(t, ringOld)
	var dog recorder
	ln, addr := serveKeyed(t, l, &dog, ring, "127.0.0.1")
	conn, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{
		Conmgr: wire.ID{1}, Nonce: wire.ID{2}, IntervalMS: 50, TimeoutMS: 500, Key: ring.First().ID(),
	}}
	from := netip.MustParseAddrPort(conn.LocalAddr().String())
	hello.Hello.Cookie = on(l, func() [wire.CookieSize]byte { return ln.cookies.Make(from, hello.Hello.Nonce, l.now) })
	sealed := wire.Append(nil, &hello)
	ring.First().SealHello(sealed)
	if _, err := conn.Write(sealed); err != nil {
		t.Fatal(err)
	}
	figures := func() (invalid, received uint64) {
		for _, s := range ln.byID {
			return s.forged, s.Machine().Stats().Received
		}
		return 0, 0
	}
	eventually(t, "the session", func() bool { return on(l, func() int { return len(ln.byID) }) == 1 })
	other := hello // another attempt from the same address, with a cookie but no key
	other.Hello.Nonce = wire.ID{3}
	other.Hello.Cookie = on(l, func() [wire.CookieSize]byte { return ln.cookies.Make(from, other.Hello.Nonce, l.now) })
	hello.Seq = 1 << 40
	for _, f := range []*wire.Frame{&other, &hello, &hello} {
		forged := wire.Append(nil, f)
		forged[wire.OffsetAuth] = 1
		if _, err := conn.Write(forged); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the forged repetitions are dropped", func() bool {
		return on(l, func() bool { dropped, received := figures(); return dropped == 2 && received == 0 })
	})
	hello.Seq = 2
	repeated := wire.Append(nil, &hello)
	ring.First().SealHello(repeated)
	if _, err := conn.Write(repeated); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the true repetition is answered", func() bool {
		return on(l, func() bool { _, received := figures(); return received == 1 })
	})
}

func TestKeysRotate(t *testing.T) {
	transports(t, func(t *testing.T, udp bool) {
		l := startLoop(t)
		var dog, man recorder
		old, both, fresh := mustRing(t, ringOld), mustRing(t, ringOld, ringNew), mustRing(t, ringNew)
		ln, addr := serveKeyed(t, l, &dog, old, "127.0.0.1")
		s := dialKeyed(l, addr, 1, old, udp, &man)
		armedBoth(t, &dog, &man)
		l.Do(func() { ln.SetRing(both) })
		before := on(l, func() uint64 { return s.Machine().Stats().Received })
		eventually(t, "beats after the first reload", func() bool {
			return on(l, func() uint64 { return s.Machine().Stats().Received }) > before+3
		})
		l.Do(func() { s.active.Key = fresh.First })
		if n := man.count(wire.StateDown); n != 0 {
			t.Errorf("%d sessions lost by a new key", n)
		}
		// The old key goes: who still uses it must begin anew, and does.
		l.Do(func() { ln.SetRing(fresh) })
		eventually(t, "armed with the new key", func() bool {
			return on(l, func() bool { return s.Key() == fresh.First().ID() && s.Machine().State() == wire.StateUp })
		})
		if n := man.count(wire.StateDown); n != 0 {
			t.Errorf("%d verdicts by the change of keys", n)
		}
	})
}
