// SPDX-License-Identifier: Apache-2.0

package key

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The cases of RFC 4231 whose key is at most 32 bytes: HMAC fills a shorter one
// up with zeros, so it is the same key.
func TestHMACVectors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		section   string
		key, data []byte
		want      string
	}{
		{"4.2", bytes.Repeat([]byte{0x0b}, 20), []byte("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"4.3", []byte("Jefe"), []byte("what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"4.4", bytes.Repeat([]byte{0xaa}, 20), bytes.Repeat([]byte{0xdd}, 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{"4.5", mustHex(t, "0102030405060708090a0b0c0d0e0f10111213141516171819"), bytes.Repeat([]byte{0xcd}, 50), "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
	} {
		var k raw
		copy(k[:], tt.key)
		var b block
		copy(b.message(), tt.data)
		if got := b.sum(&k, len(tt.data)); hex.EncodeToString(got[:]) != tt.want {
			t.Errorf("RFC 4231 section %s: %x, want %s", tt.section, got, tt.want)
		}
	}
}

// The key schedule is part of the protocol. These were computed by another
// implementation (Python's hmac) from the package comment.
func TestKeySchedule(t *testing.T) {
	t.Parallel()
	k := mustRing(t).First()
	c, w := mustPair(t)
	for _, tt := range []struct {
		name string
		got  raw
		want string
	}{
		{"prk", k.prk, "dba2a5865f6211b30e53dfe1cf8962ca9731868ca0c182b8b407159fa42049d4"},
		{"HELLO", k.hello, "d2a3acf0701970fedaea3f19ec4f144c0cb459df6f7fa8619c4bf7838069dcab"},
		{"REFUSE", k.reply, "eca3b5469354b5a10a699282d9c03a230caf21c04b07da4dfff1e492f76317d3"},
		{"conmgr sends", c.send, "e73c2bfcdfa7ef6ec0639c8e05d19a7f6ec1a05d3e6b0be5c1d570e833977652"},
		{"watchdog receives", w.recv, "e73c2bfcdfa7ef6ec0639c8e05d19a7f6ec1a05d3e6b0be5c1d570e833977652"},
		{"watchdog sends", w.send, "c0e44422bba88fff7b251cb99b726966e52ff74a33e0aa1b71d336959161371b"},
		{"conmgr receives", c.recv, "c0e44422bba88fff7b251cb99b726966e52ff74a33e0aa1b71d336959161371b"},
	} {
		if got := hex.EncodeToString(tt.got[:]); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestSealedFrame(t *testing.T) {
	t.Parallel()
	c, w := mustPair(t)
	frame := wire.Append(nil, &wire.Frame{
		Header: wire.Header{Type: wire.TypeBye, Session: handshake.Session, Seq: 7, MAC: [16]byte{1, 2, 3}},
		Bye:    wire.Bye{Kind: wire.ByeRestart},
	})
	c.Seal(frame)
	want := "4342010400000100" + "0102030405060708" + "0000000000000007" + "6cab62780645f0f0de259871f11fa233" + "02000000"
	if got := hex.EncodeToString(frame); got != want {
		t.Errorf("sealed BYE\n%s, want\n%s", got, want)
	}
	if err := w.Accept(frame); err != nil {
		t.Error(err)
	}
}

func TestCookieVector(t *testing.T) {
	t.Parallel()
	c := NewCookies([32]byte(mustHex(t, secretA)))
	got := c.Make(netip.MustParseAddrPort("[2001:db8::1%eth0]:5000"), wire.ID{0x33}, mono.Instant(1239*time.Second))
	if want := "7b96250e81d48e9d2222c76331b0022cd3b10e76ea444ce5cc23c8a9f4e2be52"; hex.EncodeToString(got[:]) != want {
		t.Errorf("%x, want %s", got, want)
	}
}

// Whatever a session's keys are derived from changes both of them.
func TestEverySessionHasItsOwnKeys(t *testing.T) {
	t.Parallel()
	ring := mustParse(t, "app1 "+secretA+"\napp2 "+secretA+"\napp3 "+secretB+"\n")
	change := func(f func(h *Handshake)) Handshake { h := handshake; f(&h); return h }
	keys := map[raw]string{}
	note := func(name string, k raw) {
		if other, ok := keys[k]; ok {
			t.Errorf("%s and %s have the same key", name, other)
		}
		keys[k] = name
	}
	for _, k := range ring.Keys() {
		note(k.String()+" hello", k.hello)
		note(k.String()+" reply", k.reply)
		for name, h := range map[string]Handshake{
			"plain":         handshake,
			"conmgr":        change(func(h *Handshake) { h.Conmgr[15] ^= 1 }),
			"watchdog":      change(func(h *Handshake) { h.Watchdog[15] ^= 1 }),
			"hello nonce":   change(func(h *Handshake) { h.HelloNonce[15] ^= 1 }),
			"welcome nonce": change(func(h *Handshake) { h.WelcomeNonce[15] ^= 1 }),
			"session":       change(func(h *Handshake) { h.Session ^= 1 }),
			"swapped ids":   change(func(h *Handshake) { h.Conmgr, h.Watchdog = h.Watchdog, h.Conmgr }),
			"swapped nonce": change(func(h *Handshake) { h.HelloNonce, h.WelcomeNonce = h.WelcomeNonce, h.HelloNonce }),
		} {
			s := NewSession(Conmgr, k, h)
			note(k.String()+" "+name+" to watchdog", s.send)
			note(k.String()+" "+name+" to conmgr", s.recv)
		}
	}
	if want := 3 * (2 + 2*8); len(keys) != want {
		t.Errorf("%d different keys, want %d", len(keys), want)
	}
}

func TestLineIsReadBack(t *testing.T) {
	t.Parallel()
	id, err := ParseID("a.b_C-0123456789")
	if err != nil {
		t.Fatal(err)
	}
	clients := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}
	line := Line(id, [32]byte(mustHex(t, secretA)), clients)
	if want := "a.b_C-0123456789 " + secretA + " 192.0.2.0/24 2001:db8::1/128\n"; line != want {
		t.Errorf("line %q, want %q", line, want)
	}
	k := mustParse(t, strings.Repeat("\n", 3)+line).First()
	if k.ID() != id || len(k.Clients()) != 2 {
		t.Errorf("read back %v %v", k, k.Clients())
	}
}
