// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// stream returns all golden frames as TCP carries them.
func stream() []byte {
	var b []byte
	for _, g := range goldens() {
		b = AppendPrefixed(b, &g.frame)
	}
	return b
}

// A stream gives the same frames however the kernel cuts it.
func TestSplitOnAnyCut(t *testing.T) {
	all := stream()
	for size := 1; size <= len(all); size++ {
		var got []Frame
		var pending []byte
		for at := 0; at < len(all); at += size {
			pending = append(pending, all[at:min(at+size, len(all))]...)
			for {
				b, rest, err := Split(pending)
				if err != nil {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				if b == nil {
					if !bytes.Equal(rest, pending) {
						t.Fatalf("pieces of %d: an incomplete frame lost bytes", size)
					}
					break
				}
				var f Frame
				if err := Parse(b, &f); err != nil {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				got, pending = append(got, f), rest
			}
		}
		for i, g := range goldens() {
			if i >= len(got) || got[i] != g.frame {
				t.Fatalf("pieces of %d: frame %d is not the %s that was sent", size, i, g.name)
			}
		}
		if len(got) != len(goldens()) || len(pending) != 0 {
			t.Fatalf("pieces of %d: %d frames and %d bytes over", size, len(got), len(pending))
		}
	}
}

func TestSplitBadLength(t *testing.T) {
	for _, c := range []struct {
		length uint16
		want   error
	}{
		{0, ErrShort}, {1, ErrShort}, {HeaderSize - 1, ErrShort}, {HeaderSize, nil},
		{MaxFrame, nil}, {MaxFrame + 1, ErrLong}, {0xffff, ErrLong},
	} {
		b := binary.BigEndian.AppendUint16(nil, c.length)
		for _, b := range [][]byte{b, append(b, make([]byte, MaxFrame)...)} { // told by the length alone
			frame, rest, err := Split(b)
			if !errors.Is(err, c.want) {
				t.Errorf("length %d: %v, want %v", c.length, err, c.want)
			}
			if err != nil && (frame != nil || !bytes.Equal(rest, b)) {
				t.Errorf("length %d: an error took something off the stream", c.length)
			}
		}
	}
}

func TestSplitNothing(t *testing.T) {
	for _, b := range [][]byte{nil, {}, {0}, {0, HeaderSize}} {
		if frame, rest, err := Split(b); frame != nil || len(rest) != len(b) || err != nil {
			t.Errorf("%v: frame %v rest %v error %v", b, frame, rest, err)
		}
	}
}
