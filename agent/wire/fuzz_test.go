// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"
)

func seedFrames(f *testing.F, add func([]byte)) {
	for _, g := range goldens() {
		b := unhex(f, g.hex)
		add(b)
		add(b[:len(b)-1])
		add(append(bytes.Clone(b), 0xff))
	}
	add(unhex(f, registerHex))
	add(nil)
	add(bytes.Repeat([]byte{0xff}, MaxFrame+1))
}

// FuzzParse: no input panics or allocates, and what was parsed survives being
// sent on.
func FuzzParse(f *testing.F) {
	seedFrames(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second Frame
		before := bytes.Clone(b)
		err := Parse(b, &first)
		if !bytes.Equal(before, b) {
			t.Fatal("parse changed its input")
		}
		if n := testing.AllocsPerRun(1, func() { _ = Parse(b, &second) }); n != 0 {
			t.Fatalf("parse allocates %v times", n)
		}
		if err != nil || first.Type == TypeRegister {
			return
		}
		if first != second {
			t.Fatal("two parses of the same bytes differ")
		}
		sent := Append(nil, &first)
		if len(sent) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(sent))
		}
		if err := Parse(sent, &second); err != nil || first != second {
			t.Fatalf("parse, append, parse: %v\n%+v\n%+v", err, first, second)
		}
		if again := Append(nil, &second); !bytes.Equal(sent, again) {
			t.Fatalf("append is not stable:\n%x\n%x", sent, again)
		}
	})
}

// FuzzSplit: no stream panics, allocates, loses or invents a byte.
func FuzzSplit(f *testing.F) {
	seedFrames(f, func(b []byte) {
		f.Add(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
	})
	f.Add(stream())
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := testing.AllocsPerRun(1, func() { _, _, _ = Split(b) }); n != 0 {
			t.Fatalf("split allocates %v times", n)
		}
		var joined []byte
		rest := b
		for {
			frame, next, err := Split(rest)
			if err != nil || frame == nil {
				if !bytes.Equal(next, rest) {
					t.Fatal("bytes were taken without a frame")
				}
				break
			}
			if len(frame) < HeaderSize || len(frame) > MaxFrame {
				t.Fatalf("a frame of %d bytes", len(frame))
			}
			joined = append(append(joined, byte(len(frame)>>8), byte(len(frame))), frame...)
			rest = next
		}
		if !bytes.Equal(append(joined, rest...), b) {
			t.Fatal("the frames and the rest are not the stream")
		}
	})
}
