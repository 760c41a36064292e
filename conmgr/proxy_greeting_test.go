// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
)

// said makes a message of an instance.
func said(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
	return append(b, body...)
}

const (
	mechanisms = "\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00"
	unbound    = "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"
)

// What the client gets, and whether a key is learned, does not depend on how the
// bytes come in pieces.
func TestGreeting(t *testing.T) {
	t.Parallel()
	long := said('S', "x\x00"+strings.Repeat("y", 5000)+"\x00")
	key4, key256 := "pid4key4", "pid4"+strings.Repeat("k", 256)
	ready := said('Z', "I")
	for _, tt := range []struct {
		name     string
		unbind   bool
		in, want []byte
		key      string
	}{
		{"scram on TLS", true, said('R', mechanisms), said('R', unbound), ""},
		{"scram in clear text", false, said('R', mechanisms), said('R', mechanisms), ""},
		{"nothing but PLUS", true, said('R', "\x00\x00\x00\x0aX-PLUS\x00\x00"), said('R', "\x00\x00\x00\x0aX-PLUS\x00\x00"), ""},
		{"a list cut short", true, said('R', "\x00\x00\x00\x0aX-PLUS\x00Y"), said('R', "\x00\x00\x00\x0aX-PLUS\x00Y"), ""},
		{"other methods", true, bytes.Join([][]byte{said('R', "\x00\x00\x00\x05salt"), said('R', "\x00\x00")}, nil), bytes.Join([][]byte{said('R', "\x00\x00\x00\x05salt"), said('R', "\x00\x00")}, nil), ""},
		{
			"whole", true,
			bytes.Join([][]byte{said('v', "\x00\x03\x00\x02\x00\x00\x00\x00"), said('R', mechanisms), said('R', "\x00\x00\x00\x00"), long, said('K', key256), ready, said('R', mechanisms)}, nil),
			bytes.Join([][]byte{said('v', "\x00\x03\x00\x02\x00\x00\x00\x00"), said('R', unbound), said('R', "\x00\x00\x00\x00"), long, said('K', key256), ready, said('R', mechanisms)}, nil),
			key256,
		},
		{"short key", false, append(said('K', key4), "garbage"...), append(said('K', key4), "garbage"...), key4},
		{"key of 3", false, said('K', "pid4key"), said('K', "pid4key"), ""},
		{"key of 257", false, said('K', key256+"k"), said('K', key256+"k"), ""},
		{"no key", false, append(ready, said('K', key4)...), append(ready, said('K', key4)...), ""},
		{"key that never ends", false, []byte("K\x00\x00\x01\x00pid"), []byte("K\x00\x00\x01\x00pid"), ""},
		{"garbage", true, []byte("HTTP/1.1 400\r\n" + mechanisms), []byte("HTTP/1.1 400\r\n" + mechanisms), ""},
		{"old error", true, []byte("Esorry, too many clients\x00"), []byte("Esorry, too many clients\x00"), ""},
		{"negative length", true, []byte("S\xff\xff\xff\xffabc"), []byte("S\xff\xff\xff\xffabc"), ""},
		{"length of 3", true, []byte("S\x00\x00\x00\x03abc"), []byte("S\x00\x00\x00\x03abc"), ""},
		{"half a head", true, []byte("R\x00"), []byte("R\x00"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 200 {
				var key string
				g := &greeting{unbind: tt.unbind, learn: func(b []byte) { key += string(b) }}
				var got []byte
				for rest := tt.in; len(rest) > 0; {
					n := 1 + rand.IntN(len(rest))
					got = append(got, g.pass(bytes.Clone(rest[:n]))...)
					rest = rest[n:]
					if len(g.held) > greetingHeld {
						t.Fatalf("%d bytes held", len(g.held))
					}
				}
				got = append(got, g.rest()...)
				if !bytes.Equal(got, tt.want) || key != tt.key {
					t.Fatalf("the client gets\n%q\nkey %q, want\n%q\nkey %q", got, key, tt.want, tt.key)
				}
			}
		})
	}
}

// FuzzGreeting: no bytes are lost, and little is held.
func FuzzGreeting(f *testing.F) {
	f.Add(append(said('R', mechanisms), said('K', "pid4key4")...), 7)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		g := &greeting{learn: func([]byte) {}}
		var got []byte
		for rest := b; len(rest) > 0; {
			n := min(max(piece, 1), len(rest))
			got = append(got, g.pass(bytes.Clone(rest[:n]))...)
			if rest = rest[n:]; len(g.held) > greetingHeld {
				t.Fatalf("%d bytes held", len(g.held))
			}
		}
		if got = append(got, g.rest()...); !bytes.Equal(got, b) {
			t.Errorf("%q became %q", b, got)
		}
	})
}
