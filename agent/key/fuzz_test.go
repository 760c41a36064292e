// SPDX-License-Identifier: Apache-2.0

package key

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Any text is a good ring or errors that name the file; a good one keeps within
// its limits and can be written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("a " + secretA + "\n# c\nb " + secretB + " 10.0.0.0/8 ::1\n"))
	f.Add([]byte("a " + secretA + "0\r\n\x00\xff 1 2"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse("keys", text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "keys:") || len(line) > 200 {
					t.Fatalf("error %q", line)
				}
			}
			return
		}
		if n := len(r.Keys()); n < 1 || n > MaxKeys {
			t.Fatalf("%d keys", n)
		}
		for _, k := range r.Keys() {
			again, err := Parse("again", []byte(Line(k.ID(), [32]byte(mustHex(t, secretA)), k.Clients())))
			if err != nil || again.First().ID() != k.ID() || !slices.Equal(slices.Compact(k.Clients()), again.First().Clients()) {
				t.Fatalf("%v %v: read again %v", k, k.Clients(), err)
			}
		}
	})
}

// What was not sealed with one of its keys is never opened, and never changed.
func FuzzOpen(f *testing.F) {
	for _, s := range mustSeal(f) {
		f.Add(s.bytes)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		known := slices.ContainsFunc(mustSeal(t), func(s sealedFrame) bool { return bytes.Equal(s.bytes, frame) })
		before := bytes.Clone(frame)
		r := mustRing(t)
		c, w := mustPair(t)
		opened := c.Accept(frame) == nil || w.Accept(frame) == nil || r.First().OpenHello(frame) || r.First().OpenRefuse(frame)
		if opened != known || !bytes.Equal(before, frame) {
			t.Fatalf("opened %v, want %v; frame changed: %v", opened, known, !bytes.Equal(before, frame))
		}
		var p wire.Frame
		if wire.Parse(frame, &p) == nil && p.Type == wire.TypeHello {
			if k, err := r.OpenHello(frame, &p.Hello, netip.Addr{}); err == nil {
				t.Fatalf("HELLO with a key id that the seed's does not name opened with %v", k)
			}
		}
	})
}
