// SPDX-License-Identifier: Apache-2.0

package key

// WindowSize is how far behind the highest sequence number a frame may come and
// still be taken.
const WindowSize = 128

// Window remembers which sequence numbers were seen, as RFC 4303 section 3.4.3
// has it: everything above the highest one is new, the last 128 are remembered one
// by one, everything older is refused. The zero value has seen nothing.
type Window struct {
	highest uint64
	seen    [2]uint64 // bit i of the 128 (seen[0] is the lower half): highest-i was seen
}

// Check reports whether seq is new. 0 never is: sequences start at 1.
func (w *Window) Check(seq uint64) bool {
	if seq > w.highest {
		return true
	}
	behind := w.highest - seq
	return seq > 0 && behind < WindowSize && w.seen[behind/64]&(1<<(behind%64)) == 0
}

// Mark notes that seq was seen. Only what Check allows may be marked, and only
// when the frame is known to be genuine.
func (w *Window) Mark(seq uint64) {
	if seq > w.highest {
		w.shift(seq - w.highest)
		w.highest = seq
	}
	if behind := w.highest - seq; behind < WindowSize {
		w.seen[behind/64] |= 1 << (behind % 64)
	}
}

// Accept marks seq and reports whether it was new.
func (w *Window) Accept(seq uint64) bool {
	ok := w.Check(seq)
	if ok {
		w.Mark(seq)
	}
	return ok
}

// Highest returns the highest number marked, 0 for none.
func (w *Window) Highest() uint64 { return w.highest }

// shift moves the window on by n. A shift by 64 or more gives 0 in Go.
func (w *Window) shift(n uint64) {
	if n >= 64 {
		w.seen[1] = w.seen[0] << (n - 64)
		w.seen[0] = 0
		return
	}
	w.seen[1] = w.seen[1]<<n | w.seen[0]>>(64-n)
	w.seen[0] <<= n
}
