// SPDX-License-Identifier: Apache-2.0

package key

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A sealed frame of every kind, with what opens it at the other end.
type sealedFrame struct {
	name  string
	bytes []byte
	open  func([]byte) bool
}

func mustSeal(t testing.TB) []sealedFrame {
	t.Helper()
	k := mustRing(t).First()
	c, w := mustPair(t)
	encode := func(f wire.Frame, seal func([]byte)) []byte {
		f.Session, f.Seq = handshake.Session, 9
		b := wire.Append(nil, &f)
		seal(b)
		return b
	}
	head := func(typ wire.Type, flags wire.Flags) wire.Frame {
		return wire.Frame{Header: wire.Header{Type: typ, Flags: flags}}
	}
	bye := head(wire.TypeBye, 0)
	bye.Bye.Kind = wire.ByeStop
	welcome := head(wire.TypeWelcome, 0)
	welcome.Welcome = wire.Welcome{Watchdog: handshake.Watchdog, Nonce: handshake.WelcomeNonce, Echo: handshake.HelloNonce, IntervalMS: 50}
	return []sealedFrame{
		{"HELLO", encode(head(wire.TypeHello, 0), k.SealHello), k.OpenHello},
		{"REFUSE", encode(head(wire.TypeRefuse, 0), k.SealRefuse), k.OpenRefuse},
		{"WELCOME", encode(welcome, w.Seal), c.Open},
		{"BEAT to conmgr", encode(head(wire.TypeBeat, wire.FlagState), w.Seal), c.Open},
		{"BEAT to watchdog", encode(head(wire.TypeBeat, wire.FlagProbe), c.Seal), w.Open},
		{"BYE to conmgr", encode(bye, w.Seal), c.Open},
		{"BYE to watchdog", encode(bye, c.Seal), w.Open},
	}
}

func TestSealedFramesOpen(t *testing.T) {
	t.Parallel()
	for _, f := range mustSeal(t) {
		if !f.open(f.bytes) {
			t.Errorf("%s does not open", f.name)
		}
	}
}

// Every bit of every frame is covered, its length too.
func TestTamperedFramesDoNotOpen(t *testing.T) {
	t.Parallel()
	for _, f := range mustSeal(t) {
		for i := range f.bytes {
			for bit := range 8 {
				f.bytes[i] ^= 1 << bit
				if f.open(f.bytes) {
					t.Errorf("%s opens with bit %d of byte %d changed", f.name, bit, i)
				}
				f.bytes[i] ^= 1 << bit
			}
		}
		for n := range len(f.bytes) {
			if f.open(f.bytes[:n]) {
				t.Errorf("%s opens cut to %d bytes", f.name, n)
			}
		}
		for _, n := range []int{1, 8, wire.MaxFrame - len(f.bytes), wire.MaxFrame} {
			if f.open(append(f.bytes[:len(f.bytes):len(f.bytes)], make([]byte, n)...)) {
				t.Errorf("%s opens with %d more bytes", f.name, n)
			}
		}
	}
}

// A frame opens only where it belongs: not at its sender, not as another kind, not
// with another secret, id, session or watchdog.
func TestFramesOpenNowhereElse(t *testing.T) {
	t.Parallel()
	ring := mustParse(t, "app1 "+secretB+"\nother "+secretA+"\n")
	next := handshake
	next.WelcomeNonce[0]++
	sameSecret := mustRing(t).First()
	c, w := mustPair(t)
	type opener struct {
		name string
		open func([]byte) bool
	}
	openers := []opener{
		{"conmgr", c.Open}, {"watchdog", w.Open}, {"as HELLO", sameSecret.OpenHello}, {"as REFUSE", sameSecret.OpenRefuse},
	}
	foreign := []opener{{"no keys, ", new(Session).Open}}
	for _, k := range append(ring.Keys(), sameSecret) {
		c, w := NewSession(Conmgr, k, next), NewSession(Watchdog, k, next)
		foreign = append(foreign, opener{k.String() + " conmgr", c.Open}, opener{k.String() + " watchdog", w.Open})
		if k != sameSecret {
			foreign = append(foreign, opener{k.String() + " HELLO", k.OpenHello}, opener{k.String() + " REFUSE", k.OpenRefuse})
		}
	}
	for _, f := range mustSeal(t) {
		opened := 0
		for _, o := range openers {
			if o.open(f.bytes) {
				opened++
			}
		}
		if opened != 1 {
			t.Errorf("%s opens in %d places, want 1", f.name, opened)
		}
		for _, o := range foreign {
			if o.open(f.bytes) {
				t.Errorf("%s opens with %s", f.name, o.name)
			}
		}
	}
}

// A right MAC alone is not enough: how it was made must be said, and there must be
// a key.
func TestRightMACDoesNotSuffice(t *testing.T) {
	t.Parallel()
	c, w := mustPair(t)
	for name, tt := range map[string]struct {
		auth, epoch byte
		key         raw
		to          *Session
		want        bool
	}{
		"as it should be": {wire.AuthHMAC, 0, c.send, w, true},
		"auth none":       {wire.AuthNone, 0, c.send, w, false},
		"auth unknown":    {2, 0, c.send, w, false},
		"another epoch":   {wire.AuthHMAC, 1, c.send, w, false},
		"no key":          {wire.AuthHMAC, 0, raw{}, new(Session), false},
	} {
		frame := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Auth: tt.auth, Epoch: tt.epoch, Seq: 1}})
		sum := frameMAC(&tt.key, frame)
		copy(frame[wire.OffsetMAC:], sum[:])
		if got := tt.to.Open(frame); got != tt.want {
			t.Errorf("%s: opens %v, want %v", name, got, tt.want)
		}
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	c, w := mustPair(t)
	beat := func(seq uint64) []byte {
		b := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: handshake.Session, Seq: seq}})
		c.Seal(b)
		return b
	}
	forged := beat(1 << 60)
	forged[len(forged)-1] ^= 1
	reflected := beat(2)
	for i, step := range []struct {
		to    *Session
		frame []byte
		want  error
	}{
		{w, beat(5), nil},
		{w, beat(5), ErrReplay},
		{w, forged, ErrForged}, // and the window stands where it was
		{w, beat(3), nil},      // overtaken on the way
		{w, beat(3), ErrReplay},
		{w, beat(0), ErrReplay},
		{w, beat(6), nil},
		{w, beat(6 + WindowSize), nil},
		{w, beat(7), nil},
		{w, beat(6), ErrReplay},
		{w, beat(4), ErrReplay}, // new, but too old to know
		{c, reflected, ErrForged},
		{w, nil, ErrForged},
		{w, make([]byte, 39), ErrForged},
		{w, make([]byte, 513), ErrForged},
		{new(Session), beat(900), ErrForged},
	} {
		if err := step.to.Accept(step.frame); err != step.want {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
}

func TestSealRefusesOurOwnMistakes(t *testing.T) {
	t.Parallel()
	k := mustRing(t).First()
	c, w := mustPair(t)
	frame := func(typ wire.Type) []byte { return wire.Append(nil, &wire.Frame{Header: wire.Header{Type: typ}}) }
	for name, do := range map[string]func(){
		"conmgr sends WELCOME":  func() { c.Seal(frame(wire.TypeWelcome)) },
		"HELLO in a session":    func() { c.Seal(frame(wire.TypeHello)) },
		"REFUSE in a session":   func() { w.Seal(frame(wire.TypeRefuse)) },
		"COOKIE in a session":   func() { w.Seal(frame(wire.TypeCookie)) },
		"session without keys":  func() { new(Session).Seal(frame(wire.TypeBeat)) },
		"BEAT as HELLO":         func() { k.SealHello(frame(wire.TypeBeat)) },
		"HELLO as REFUSE":       func() { k.SealRefuse(frame(wire.TypeHello)) },
		"with its TCP prefix":   func() { c.Seal(wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat}})) },
		"too short for a frame": func() { c.Seal(frame(wire.TypeBeat)[:39]) },
		"too long for a frame":  func() { c.Seal(append(frame(wire.TypeBeat), make([]byte, 512)...)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: sealed", name)
				}
			}()
			do()
		}()
	}
}

// 10,000 sessions at 1 KiB each leave no room for hash objects.
func TestSessionIsSmall(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(Session{}); size > 96 {
		t.Errorf("a Session has %d bytes, want at most 96", size)
	}
}

func TestNoAllocationPerFrame(t *testing.T) {
	c, w := mustPair(t)
	r := mustRing(t)
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello}, Hello: wire.Hello{Key: r.First().ID()}}
	first := wire.Append(nil, &hello)
	beat := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat}})
	cookies := NewCookies([32]byte{1})
	remote := netip.MustParseAddrPort("192.0.2.1:5000")
	seq := byte(0)
	allocs := testing.AllocsPerRun(100, func() {
		seq++
		beat[wire.OffsetSeq+7] = seq
		c.Seal(beat)
		if err := w.Accept(beat); err != nil {
			t.Fatal(err)
		}
		r.First().SealHello(first)
		if _, err := r.OpenHello(first, &hello.Hello, remote.Addr()); err != nil {
			t.Fatal(err)
		}
		if !cookies.Check(cookies.Make(remote, wire.ID{1}, 5), remote, wire.ID{1}, 5) {
			t.Fatal("own cookie not taken")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per frame", allocs)
	}
}

// No verb and no encoder prints a key.
func TestNothingPrintsKeys(t *testing.T) {
	t.Parallel()
	k := mustRing(t).First()
	s := NewSession(Conmgr, k, handshake)
	cookies := NewCookies([32]byte(k.prk))
	for _, v := range []any{k, *k, s, &s, cookies, *cookies, []*Key{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q", "%o"} {
			got := fmt.Sprintf(verb, v)
			for _, secret := range []raw{k.prk, k.hello, s.send, s.recv} {
				for _, form := range []string{"%v", "%x", "%X", "%d", "%s", "%q", "%o", "%#v"} {
					if part := fmt.Sprintf(form, secret[:8]); strings.Contains(got, strings.Trim(part, "[]")) {
						t.Errorf("%T with %s prints a key: %s", v, verb, got)
					}
				}
			}
			if len(got) > 60 {
				t.Errorf("%T with %s prints %d characters: %s", v, verb, len(got), got)
			}
		}
		if text, err := json.Marshal(v); err != nil || len(text) > 10 {
			t.Errorf("%T as JSON: %s %v", v, text, err)
		}
	}
}
