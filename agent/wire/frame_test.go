// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// numbers prints the values with their names, and the first one behind them.
func numbers[T interface {
	~uint8
	fmt.Stringer
}](vs ...T) string {
	var parts []string
	for _, v := range append(vs, vs[len(vs)-1]+1) {
		parts = append(parts, fmt.Sprintf("%d %s", uint8(v), v))
	}
	return strings.Join(parts, ", ")
}

func randID(r *rand.Rand) (id ID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

// randFrame returns a frame of any type that is sent, with random fields.
func randFrame(r *rand.Rand) Frame {
	f := Frame{Header: Header{
		Type: Type(1 + r.IntN(int(TypeCookie))), Flags: Flags(r.Uint32()),
		Auth: uint8(r.Uint32()), Epoch: uint8(r.Uint32()),
		Session: r.Uint64(), Seq: r.Uint64(), MAC: randID(r),
	}}
	bit := func() bool { return r.IntN(2) == 1 }
	switch f.Type {
	case TypeHello:
		f.Hello = Hello{
			Conmgr: randID(r), Nonce: randID(r), IntervalMS: r.Uint32(), TimeoutMS: r.Uint32(),
			Incarnation: r.Uint64(), Resumes: r.Uint64(), Key: randID(r),
		}
		for i := range f.Hello.Cookie {
			f.Hello.Cookie[i] = byte(r.Uint32())
		}
	case TypeWelcome:
		f.Welcome = Welcome{
			Watchdog: randID(r), Nonce: randID(r), IntervalMS: r.Uint32(), TimeoutMS: r.Uint32(),
			Incarnation: r.Uint64(), Key: randID(r), Echo: randID(r),
		}
	case TypeBeat:
		f.Beat = Beat{
			Ack: r.Uint64(), AckDelayUS: r.Uint32(), Lost: r.Uint32(), Received: r.Uint32(),
			State: State(r.Uint32()), Reason: Reason(r.Uint32()),
		}
		if f.Flags&FlagState != 0 {
			f.Beat.Instance = Instance{
				Attribute: Attribute(r.Uint32()), Status: Status(r.Uint32()),
				ReadOnly: bit(), Paused: bit(), DryRun: bit(),
				Timeline: r.Uint32(), WAL: r.Uint64(), SystemID: r.Uint64(), Port: uint16(r.Uint32()),
				StartUS: int64(r.Uint64()), Generation: r.Uint64(),
			}
		}
	case TypeBye:
		f.Bye.Kind = ByeKind(r.Uint32())
	case TypeRefuse:
		f.Refuse = Refuse{Code: Code(r.Uint32()), Limit: r.Uint32(), Echo: randID(r)}
	case TypeCookie:
		f.Cookie.Echo = randID(r)
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var buf []byte
	for range 20_000 {
		want := randFrame(r)
		buf = Append(buf[:0], &want)
		if len(buf) > MaxFrame {
			t.Fatalf("%v has %d bytes, more than %d", want.Type, len(buf), MaxFrame)
		}
		got := randFrame(r) // whatever was in it must go
		if err := Parse(buf, &got); err != nil {
			t.Fatalf("parse %v: %v", want.Type, err)
		}
		if got != want {
			t.Fatalf("round trip (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}

// A frame owns its values: the bytes it came from may be overwritten.
func TestParseKeepsNoReference(t *testing.T) {
	for _, g := range goldens() {
		b := unhex(t, g.hex)
		var f Frame
		if err := Parse(b, &f); err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		clear(b)
		if diff := cmp.Diff(g.frame, f); diff != "" {
			t.Errorf("%s changed with its bytes (-want +got):\n%s", g.name, diff)
		}
	}
}

// An old version must understand a newer one that has added to a body.
func TestTrailingBytesIgnored(t *testing.T) {
	for _, g := range goldens() {
		full := append(unhex(t, g.hex), bytes.Repeat([]byte{0xee}, MaxFrame)...)[:MaxFrame]
		for _, b := range [][]byte{full, full[:len(unhex(t, g.hex))+1]} {
			var f Frame
			if err := Parse(b, &f); err != nil {
				t.Fatalf("%s with %d bytes: %v", g.name, len(b), err)
			}
			if diff := cmp.Diff(g.frame, f); diff != "" {
				t.Errorf("%s with %d bytes (-want +got):\n%s", g.name, len(b), diff)
			}
		}
	}
}

func TestReservedBytesIgnored(t *testing.T) {
	reserved := map[string][]int{ // offsets inside the body, from the package comment
		"BEAT with a probe, an answer and a MAC": {22, 23},
		"BEAT with an instance":                  {22, 23, 24 + 3, 24 + 26, 24 + 27, 24 + 28, 24 + 29, 24 + 30, 24 + 31},
		"BYE":                                    {1, 2, 3},
		"REFUSE":                                 {2, 3},
		"HELLO":                                  nil, "WELCOME": nil, "COOKIE": nil,
	}
	for _, g := range goldens() {
		offsets, ok := reserved[g.name]
		if !ok {
			t.Errorf("%s: say which of its bytes are reserved", g.name)
		}
		b := unhex(t, g.hex)
		for _, at := range offsets {
			b[HeaderSize+at] = 0xff
		}
		var f Frame
		if err := Parse(b, &f); err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		if diff := cmp.Diff(g.frame, f); diff != "" {
			t.Errorf("%s (-want +got):\n%s", g.name, diff)
		}
	}
}

// Bits of the instance that a newer version may use change nothing.
func TestUnknownBitsIgnored(t *testing.T) {
	b := Append(nil, &Frame{Header: Header{Type: TypeBeat, Flags: FlagState}})
	b[HeaderSize+beatSize+2] = ^byte(bitReadOnly | bitPaused | bitDryRun)
	var f Frame
	if err := Parse(b, &f); err != nil || f.Beat.Instance != (Instance{}) {
		t.Errorf("instance %+v, error %v; want an empty one", f.Beat.Instance, err)
	}
}

func TestTruncatedIsShort(t *testing.T) {
	table := append(goldens(), golden{name: "REGISTER", hex: registerHex})
	for _, g := range table {
		b := unhex(t, g.hex)
		for n := range b {
			var f Frame
			if err := Parse(b[:n:n], &f); !errors.Is(err, ErrShort) {
				t.Errorf("%s cut to %d of %d bytes: %v, want ErrShort", g.name, n, len(b), err)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	good := Append(nil, &Frame{Header: Header{Type: TypeBeat, Session: 5, Seq: 6}})
	with := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	wantHeader := Header{Type: TypeBeat, Session: 5, Seq: 6}
	unknown := wantHeader
	unknown.Type = 8
	zero := wantHeader
	zero.Type = 0
	for _, c := range []struct {
		name   string
		b      []byte
		want   error
		header *Header // what the caller may rely on, nil for nothing
	}{
		{"longer than the largest frame", make([]byte, MaxFrame+1), ErrLong, nil},
		{"much longer", make([]byte, 1<<20), ErrLong, nil},
		{"nothing", nil, ErrShort, nil},
		{"only zeroes", make([]byte, HeaderSize), ErrMagic, nil},
		{"first byte of the magic", with(0, 0x44), ErrMagic, nil},
		{"second byte of the magic", with(1, 0x43), ErrMagic, nil},
		{"version 0", with(2, 0), ErrVersion, &wantHeader},
		{"version 2", with(2, 2), ErrVersion, &wantHeader},
		{"version 2 without a body", with(2, 2)[:HeaderSize], ErrVersion, &wantHeader},
		{"type 0", with(3, 0), ErrType, &zero},
		{"type 8", with(3, 8), ErrType, &unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Frame
			if err := Parse(c.b, &f); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if c.header != nil && f.Header != *c.header {
				t.Errorf("header %+v, want %+v", f.Header, *c.header)
			}
		})
	}
}

func TestRegisterCountMustFit(t *testing.T) {
	b := unhex(t, registerHex)
	b[HeaderSize], b[HeaderSize+1] = 0xff, 0xff
	var f Frame
	if err := Parse(b, &f); !errors.Is(err, ErrShort) {
		t.Errorf("65535 entries in %d bytes: %v, want ErrShort", len(b), err)
	}
}

func TestAppendPanicsOnWhatIsNotSent(t *testing.T) {
	for _, typ := range []Type{0, TypeRegister, 8, 255} {
		t.Run(typ.String(), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("append of type %d did not panic", typ)
				}
			}()
			Append(nil, &Frame{Header: Header{Type: typ}})
		})
	}
}

func TestAppendKeepsWhatWasThere(t *testing.T) {
	f := Frame{Header: Header{Type: TypeBye}}
	got := AppendPrefixed(Append([]byte("before"), &f), &f)
	one := Append(nil, &f)
	want := append(append([]byte("before"), one...), append([]byte{0, byte(len(one))}, one...)...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNothingAllocates(t *testing.T) {
	var (
		f   Frame
		buf = make([]byte, 0, 2*MaxFrame)
		bad = bytes.Repeat([]byte{0xff}, MaxFrame)
	)
	for _, g := range append(goldens(), golden{name: "REGISTER", hex: registerHex}) {
		b := unhex(t, g.hex)
		if n := testing.AllocsPerRun(100, func() { _ = Parse(b, &f) }); n != 0 {
			t.Errorf("parse of %s allocates %v times", g.name, n)
		}
		if g.frame.Type == 0 {
			continue
		}
		if n := testing.AllocsPerRun(100, func() { buf = AppendPrefixed(buf[:0], &g.frame) }); n != 0 {
			t.Errorf("append of %s allocates %v times", g.name, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _, _ = Split(buf) }); n != 0 {
			t.Errorf("split of %s allocates %v times", g.name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _ = Parse(bad, &f); _, _, _ = Split(bad) }); n != 0 {
		t.Errorf("refusing garbage allocates %v times", n)
	}
}

func TestEchoOf(t *testing.T) {
	r := Refuse{Code: CodeSession, Echo: EchoOf(&Header{Session: 0x0102030405060708, Seq: 0x1112131415161718})}
	if want := (ID{1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18}); r.Echo != want {
		t.Errorf("echo %x, want %x", r.Echo, want)
	}
	if session, seq := r.Echoed(); session != 0x0102030405060708 || seq != 0x1112131415161718 {
		t.Errorf("session %x, number %x", session, seq)
	}
}
