// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// golden is what the programs of a little-endian machine send.
const golden = "15cd5b0700000000" + "2a000000" + "980000f0" +
	"65746830000000000000000000000000" + "01" + "00000000000000"

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// native turns the numbers of a little-endian hint into the machine's order.
func native(b []byte) []byte {
	b = bytes.Clone(b)
	binary.NativeEndian.PutUint64(b, binary.LittleEndian.Uint64(b))
	for _, at := range []int{8, 12} {
		binary.NativeEndian.PutUint32(b[at:], binary.LittleEndian.Uint32(b[at:]))
	}
	return b
}

func TestParseHint(t *testing.T) {
	lost := native(mustHex(t, golden))
	back := bytes.Clone(lost)
	back[32] = 2
	copy(back[16:], "a-name-of-15-by")
	for _, tt := range []struct {
		name string
		b    []byte
		want carrierEvent
	}{
		{"lost", lost, carrierEvent{index: 42, name: "eth0", lost: true, at: 123456789}},
		{"back, longest name", back, carrierEvent{index: 42, name: "a-name-of-15-by", at: 123456789}},
		{"longer than known", append(bytes.Clone(lost), 1, 2, 3), carrierEvent{index: 42, name: "eth0", lost: true, at: 123456789}},
	} {
		if got, err := parseHint(tt.b); err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestParseHintRefuses(t *testing.T) {
	good := native(mustHex(t, golden))
	for n := range good {
		if e, err := parseHint(good[:n]); err == nil {
			t.Errorf("%d bytes became %+v", n, e)
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(b []byte)
	}{
		{"no kind", func(b []byte) { b[32] = 0 }},
		{"unknown kind", func(b []byte) { b[32] = 3 }},
		{"no device", func(b []byte) { copy(b[8:12], "\x00\x00\x00\x00") }},
		{"negative device", func(b []byte) { copy(b[8:12], "\xff\xff\xff\xff") }},
		{"name without end", func(b []byte) { copy(b[16:32], strings.Repeat("x", 16)) }},
	} {
		b := bytes.Clone(good)
		tt.spoil(b)
		if e, err := parseHint(b); err == nil {
			t.Errorf("%s became %+v", tt.name, e)
		}
	}
}

// Whatever the bytes are, the event is one of a device, or there is none.
func FuzzEvent(f *testing.F) {
	f.Add(mustHex(f, golden))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, hintLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseHint(b)
		if err != nil {
			return
		}
		if e.index <= 0 || len(e.name) >= 16 || strings.ContainsRune(e.name, 0) || len(b) < hintLen {
			t.Errorf("%x became %+v", b, e)
		}
	})
}
