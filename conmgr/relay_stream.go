// SPDX-License-Identifier: Apache-2.0

package conmgr

import "time"

// A stream is bulk data one way, such as of COPY. An instance sends it in pieces of 8 KiB
// (PQ_SEND_BUFFER_SIZE, src/backend/libpq/pqcomm.c), and a loop that wakes for each piece
// takes the processor from who makes the next one, or reads this one. While nothing but
// streams passes, the loop therefore lets pieces gather for a moment: COPY of 100 MB on
// two processors took 141 ms of conmgr's processor time instead of 225, and passed 225
// MB/s instead of 187. A message of somebody else waits for the rest of one such moment;
// then streamTurns pass without.
const (
	streamBytes = 1 << 20                // one way, with nothing the other way
	streamTurns = 16                     // in a row with nothing but streams
	gatherTime  = 100 * time.Microsecond // and what the kernel's timer slack adds, 50 us
)

// streamWatch notices that a loop has passed nothing but streams for some turns.
type streamWatch struct {
	streams, others bool // have passed bytes in this turn
	turns           int  // in a row with streams alone
}

// passed notes that a pair has passed bytes.
func (w *streamWatch) passed(isStream bool) {
	if isStream {
		w.streams = true
	} else {
		w.others = true
	}
}

// turn ends a turn, and reports whether pieces should gather before the next.
func (w *streamWatch) turn() bool {
	if w.streams && !w.others {
		w.turns++
	} else {
		w.turns = 0
	}
	w.streams, w.others = false, false
	return w.turns >= streamTurns
}

// passed notes what a lane has read, and reports whether it is a stream.
func (p *pair) passed(f *lane, n int) bool {
	if p.last != f {
		p.last, p.oneWay = f, 0
	}
	p.oneWay += int64(n)
	return p.oneWay > streamBytes
}

// letGather sleeps while pieces come.
func letGather() {
	if othersHaveProcessors() {
		quickPause(gatherTime)
	} else {
		standBack(gatherTime)
	}
}
