// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"math"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// A hint asks at once, and the verdict falls exactly at the end of the grace.
func TestHintEndsTheSessionAfterTheGrace(t *testing.T) {
	for _, grace := range []time.Duration{0, 1, interval / 2, 3 * interval} {
		bothRoles(t, func(t *testing.T, r *rig) {
			r.after(10 * ms)
			r.linkLost(grace)
			r.wantState(wire.StateSuspect)
			if f := r.frames[len(r.frames)-1]; f.Flags&wire.FlagProbe == 0 || f.Beat.Reason != wire.ReasonHint {
				t.Errorf("the last frame is no probe because of a hint: %+v", f)
			}
			verdict := r.now.Add(grace)
			if r.m.Deadline() != verdict {
				t.Fatalf("deadline %v, want %v", r.m.Deadline(), verdict)
			}
			if grace > 0 {
				r.run(verdict - 1)
				r.wantNoVerdict()
			}
			r.at(verdict)
			if ch := r.wantVerdict(wire.ReasonLinkDown); ch.Silence != grace+10*ms {
				t.Errorf("silence %v, want %v", ch.Silence, grace+10*ms)
			}
		})
	}
}

// No grace is longer than the timeout, and the verdict of silence is not put off.
func TestHintNeverPutsTheVerdictOff(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		verdict := r.m.Deadline()
		r.after(interval)
		r.linkLost(time.Hour)
		r.linkLost(math.MaxInt64) // a link that was set down on purpose
		if r.m.Deadline() != verdict {
			t.Fatalf("deadline %v, want %v", r.m.Deadline(), verdict)
		}
		r.at(verdict)
		r.wantVerdict(wire.ReasonLinkDown)
	})
}

// Another hint with a longer grace, as of the route that goes with the link, moves
// nothing back; one with a shorter grace counts.
func TestHintAgain(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.linkLost(2 * interval)
		first := r.m.Deadline()
		r.after(interval / 2)
		r.linkLost(time.Hour)
		if r.m.Deadline() != first {
			t.Fatalf("deadline %v, want %v", r.m.Deadline(), first)
		}
		r.linkLost(interval / 4)
		if want := r.now.Add(interval / 4); r.m.Deadline() != want {
			t.Fatalf("deadline %v, want %v", r.m.Deadline(), want)
		}
	})
}

func TestValidFrameEndsTheHint(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.linkLost(interval)
		r.after(interval - 1)
		r.beat()
		r.wantState(wire.StateUp)
		if want := r.now.Add(timeout); r.m.Deadline() != want {
			t.Fatalf("deadline %v, want %v", r.m.Deadline(), want)
		}
		r.at(r.m.Deadline())
		r.wantVerdict(wire.ReasonTimeout)
	})
}

// The link's return leaves the session asking, with its whole timeout.
func TestLinkBackEndsTheHint(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		verdict := r.m.Deadline()
		r.after(10 * ms)
		r.linkLost(interval)
		r.after(interval / 2)
		r.linkBack()
		r.wantState(wire.StateLate)
		if r.m.Deadline() != verdict {
			t.Fatalf("deadline %v, want %v", r.m.Deadline(), verdict)
		}
		r.run(verdict - 1)
		r.wantNoVerdict()
		r.at(verdict)
		r.wantVerdict(wire.ReasonTimeout)
	})
}

// The doubt of an own pause does not end with a hint that is taken back.
func TestLinkBackLeavesAnotherDoubt(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.linkLost(interval)
		r.paused(timeout)
		r.linkBack()
		r.wantState(wire.StateSuspect)
		if want := r.now.Add(timeout); r.m.Deadline() != want {
			t.Errorf("deadline %v, want %v", r.m.Deadline(), want)
		}
	})
}

// After an own pause nobody is judged for one full timeout, hint or not.
func TestHintDoesNotCutAPauseShort(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.paused(timeout)
		guard := r.now.Add(timeout)
		r.after(10 * ms)
		r.linkLost(0)
		r.run(guard - 1)
		r.wantNoVerdict()
		r.at(guard)
		r.wantVerdict(wire.ReasonLinkDown)
	})
}

// The fuse counts those that a hint is about to end, gives them one more timeout,
// and a link that flaps meanwhile does not take it away.
func TestFuseHoldsAHint(t *testing.T) {
	r := armed(t, Passive)
	r.after(10 * ms)
	if r.linkLost(interval); !r.m.Dying(r.now) {
		t.Fatal("the fuse does not count it")
	}
	due := r.m.Deadline()
	r.at(due - 1)
	r.hold()
	if want := due.Add(timeout); r.m.Deadline() != want {
		t.Fatalf("deadline %v, want %v", r.m.Deadline(), want)
	}
	r.linkBack()
	r.linkLost(0)
	r.run(due.Add(timeout) - 1)
	r.wantNoVerdict()
	r.at(due.Add(timeout))
	r.wantVerdict(wire.ReasonTimeout)
}

// Who has no armed session has nothing to lose, and the next session begins
// without the hint.
func TestHintWithoutASession(t *testing.T) {
	r := active(t)
	r.linkLost(0)
	r.wantSent("")
	r.connect()
	r.linkLost(0)
	r.wantState(wire.StateInit)
	r.beat()
	r.linkLost(interval)
	r.at(r.m.Deadline())
	r.wantVerdict(wire.ReasonLinkDown)
	r.now = r.m.Next()
	r.connect()
	r.beat()
	r.wantState(wire.StateUp)
	if want := r.now.Add(timeout); r.m.Deadline() != want {
		t.Errorf("deadline %v, want %v", r.m.Deadline(), want)
	}
}
