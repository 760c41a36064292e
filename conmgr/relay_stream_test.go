// SPDX-License-Identifier: Apache-2.0

package conmgr

import "testing"

// A pair is a stream while much passes one way and nothing the other.
func TestPairIsStream(t *testing.T) {
	p := new(pair)
	out, in := &p.lanes[towardsClient], &p.lanes[towardsInstance]
	for i, step := range []struct {
		lane *lane
		n    int
		want bool
	}{
		{in, 100, false},
		{out, streamBytes, false},
		{out, 1, true},
		{out, 8192, true},
		{in, 5, false},
		{out, 8192, false},
		{out, streamBytes, true},
		{in, streamBytes, false},
		{in, streamBytes, true},
	} {
		if got := p.passed(step.lane, step.n); got != step.want {
			t.Errorf("step %d: stream %v, want %v", i, got, step.want)
		}
	}
}

// Pieces gather when nothing but streams has passed for some turns, and not after
// anything else has.
func TestStreamWatch(t *testing.T) {
	var w streamWatch
	streams := func(turns int) (gathered int) {
		for range turns {
			w.passed(true)
			if w.turn() {
				gathered++
			}
		}
		return gathered
	}
	if got := streams(streamTurns + 4); got != 5 {
		t.Errorf("gathered after %d turns of %d, want 5", got, streamTurns+4)
	}
	w.passed(true)
	w.passed(false)
	if w.turn() {
		t.Error("gathered after a turn with a message")
	}
	if got := streams(streamTurns); got != 1 {
		t.Errorf("gathered after %d turns, want the last one alone", got)
	}
	if w.turn() {
		t.Error("gathered after a turn with nothing")
	}
}

// A loop notices a stream that passes it.
func TestLoopSeesStream(t *testing.T) {
	r := mustStill(t)
	x := r.mustRelay(t, nil)
	piece := string(make([]byte, 8192))
	turns := 0
	for ; !r.stream.turn(); turns++ {
		if turns > streamBytes {
			t.Fatal("a stream is not noticed")
		}
		r.mustTake(t, x, piece)
		r.sends.flush()
		mustRead(t, x.instance, []byte(piece))
	}
	if want := streamBytes/len(piece) + streamTurns; turns != want {
		t.Errorf("noticed after %d pieces, want %d", turns, want)
	}
}

// A loop that passes a stream lets its pieces gather, and passes all of them.
func TestLoopGathers(t *testing.T) {
	r := mustRig(t)
	gathered := make(chan struct{}, 1)
	r.gather = func() {
		select {
		case gathered <- struct{}{}:
		default:
		}
	}
	r.start(t)
	x := r.mustRelay(t, nil)
	piece := make([]byte, 8192)
	for i := 0; len(gathered) == 0; i++ {
		if i == 10_000 {
			t.Fatalf("nothing gathered in %d pieces", i)
		}
		mustWrite(t, x.client, piece)
		mustRead(t, x.instance, piece)
	}
	mustWrite(t, x.client, []byte("last"))
	mustRead(t, x.instance, []byte("last"))
}
