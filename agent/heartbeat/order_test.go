// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A frame that comes behind a newer one is no lost one, and says nothing: the
// deadline stays, an old state is not believed. But what it asks is answered, once:
// the newer one may have been no question.
func TestFrameBehindANewerOne(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		held := r.beatFrame()
		held.Flags, held.Beat.State = wire.FlagProbe, wire.StateDown
		r.beat()
		if got := r.m.Stats().Lost; got != 1 {
			t.Fatalf("%d lost while one is missing", got)
		}
		deadline := r.m.Deadline()
		r.now = r.now.Add(interval / 2)
		r.receive(held)
		r.wantState(wire.StateUp)
		if len(r.out.Frames) != 1 || r.out.Frames[0].Flags&wire.FlagAnswer == 0 || r.m.Deadline() != deadline {
			t.Errorf("sent %q, deadline moved by %v", r.sent(), r.m.Deadline().Sub(deadline))
		}
		if s := r.m.Stats(); s.Lost != 0 || s.Invalid != 0 {
			t.Errorf("%d lost, %d invalid: expected none", s.Lost, s.Invalid)
		}
		r.now = r.now.Add(answerEvery)
		r.receive(held)
		if len(r.out.Frames) > 0 {
			t.Errorf("the same again is answered: %q", r.sent())
		}
		if s := r.m.Stats(); s.Lost != 0 || s.Invalid != 1 {
			t.Errorf("the same again: %d lost, %d invalid: expected 0 and 1", s.Lost, s.Invalid)
		}
	})
}

// Only the last 64 are remembered; what was seen before the session's first
// frame is not missed.
func TestFrameFarBehind(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		before := r.beatFrame()
		before.Seq = 0
		r.peer--
		r.receive(before)
		var held []wire.Frame
		for range 65 {
			held = append(held, r.beatFrame())
		}
		r.beat()
		for _, f := range held {
			r.receive(f)
		}
		if s := r.m.Stats(); s.Lost != 2 || s.Invalid != 3 {
			t.Errorf("%d lost, %d invalid: expected the two oldest of 65, and those and one of before", s.Lost, s.Invalid)
		}
	})
}
