// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func TestPauseOfAQuarterIsNothing(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		deadline := r.m.Deadline()
		r.after(10 * ms)
		r.paused(timeout / 4)
		r.wantState(wire.StateUp)
		r.wantSent("")
		if r.m.Deadline() != deadline || r.m.Stats().Pauses != 0 {
			t.Errorf("deadline %v, want %v; pauses %d", r.m.Deadline(), deadline, r.m.Stats().Pauses)
		}
	})
}

// After an own pause nobody is judged for that silence: suspect, asked at once,
// and one full timeout.
func TestPauseGivesOneFullTimeout(t *testing.T) {
	for _, slept := range []time.Duration{timeout/4 + 1, timeout, time.Hour} {
		bothRoles(t, func(t *testing.T, r *rig) {
			r.now = r.now.Add(slept)
			r.paused(slept)
			r.wantState(wire.StateSuspect)
			r.tick()
			r.wantNoVerdict()
			if f := r.frames[len(r.frames)-1]; f.Flags&wire.FlagProbe == 0 || f.Beat.State != wire.StateSuspect {
				t.Errorf("the last frame is no probe: %+v", f.Header)
			}
			verdict := r.now.Add(timeout)
			r.run(verdict - 1)
			r.wantNoVerdict()
			r.at(verdict)
			if ch := r.wantVerdict(wire.ReasonTimeout); !ch.OwnPause {
				t.Error("nothing was heard since the pause, and the verdict does not say so")
			}
			if r.m.Stats().Pauses != 1 {
				t.Errorf("%d pauses counted", r.m.Stats().Pauses)
			}
		})
	}
}

func TestRepeatedPausesNeverJudge(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		for range 100 {
			r.now = r.now.Add(timeout - 1)
			r.paused(timeout - 1)
			r.tick()
		}
		r.wantNoVerdict()
		r.run(r.now.Add(timeout))
		r.wantState(wire.StateDown)
	})
}

func TestPauseEndsWithAFrame(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.now = r.now.Add(time.Hour)
		r.paused(time.Hour)
		r.beat()
		r.wantState(wire.StateUp)
		if ch := r.out.Changes[0]; ch.Reason != wire.ReasonHeard || !ch.OwnPause {
			t.Errorf("change %+v", ch)
		}
	})
}

// What had queued up is drained first and ends the doubt; when the peer has
// left meanwhile, the mark of the pause must still stand.
func TestPauseMarkSurvivesStaleBeats(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(r *rig)
		why  wire.Reason
	}{
		{"broken", func(r *rig) { r.broken() }, wire.ReasonDisconnect},
		{"told down", func(r *rig) { r.peerDown(wire.ReasonTimeout) }, wire.ReasonPeerDown},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, wait := range []time.Duration{0, timeout - 1, timeout} {
				r := armed(t, Passive)
				r.now = r.now.Add(time.Hour)
				r.paused(time.Hour)
				r.beat()
				r.beat()
				r.wantState(wire.StateUp)
				r.now = r.now.Add(wait)
				c.end(r)
				if ch := r.wantVerdict(c.why); ch.OwnPause != (wait < timeout) {
					t.Errorf("%v after the pause: OwnPause %v", wait, ch.OwnPause)
				}
			}
		})
	}
}

// A pause in the handshake: the attempt gets its time anew, and a session that
// is armed by what had queued up and then breaks carries the mark.
func TestPauseInTheHandshake(t *testing.T) {
	t.Run("passive attempt", func(t *testing.T) {
		r := passive(t)
		r.now = r.now.Add(time.Hour)
		r.paused(time.Hour)
		r.tick()
		r.wantState(wire.StateInit)
		r.run(r.now.Add(connectTimeout) - 1)
		r.wantState(wire.StateInit)
		r.at(r.now + 1)
		r.wantState(wire.StateDown)
		r.wantNoVerdict()
	})
	t.Run("passive mark", func(t *testing.T) {
		r := passive(t)
		r.now = r.now.Add(time.Hour)
		r.paused(time.Hour)
		r.beat()
		r.broken()
		if ch := r.wantVerdict(wire.ReasonDisconnect); !ch.OwnPause {
			t.Error("the peer hung up during the pause: OwnPause is not set")
		}
	})
	for name, prepare := range map[string]func(r *rig){
		"active dialing": func(r *rig) { r.tick() },
		"active shaking": func(r *rig) { r.shake() },
		"active open":    func(r *rig) { r.connect() },
	} {
		t.Run(name, func(t *testing.T) {
			r := active(t)
			prepare(r)
			r.now = r.now.Add(time.Hour)
			r.paused(time.Hour)
			r.tick()
			r.wantState(wire.StateInit)
			r.after(connectTimeout - 1)
			r.wantState(wire.StateInit)
			r.after(1)
			r.wantState(wire.StateDown)
		})
	}
}

// A pause never shortens what the fuse has given.
func TestPauseKeepsTheFuse(t *testing.T) {
	r := armed(t, Passive)
	r.at(r.m.lateAt)
	r.hold()
	held := r.m.Deadline()
	r.now = r.now.Add(timeout/4 + 1)
	r.paused(timeout/4 + 1)
	if r.m.Deadline() != held {
		t.Errorf("deadline moved by %v", r.m.Deadline().Sub(held))
	}
}

// Frames that sat in a paused end's queue make the measured round trip long;
// the next doubt must be probed all the same.
func TestLongRoundTripDoesNotSilenceProbes(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		queued := r.beatFrame()
		r.now = r.now.Add(time.Hour)
		r.paused(time.Hour)
		r.receive(queued)
		if r.m.Stats().RTT < time.Minute {
			t.Fatalf("round trip %v: the test does not do what it says", r.m.Stats().RTT)
		}
		probes := 0
		for end := r.now.Add(timeout) - 1; !r.m.Next().After(end); {
			r.at(r.m.Next())
			for _, f := range r.out.Frames {
				if f.Flags&wire.FlagProbe != 0 {
					probes++
				}
			}
		}
		if probes < 15 { // 247 ms at 12.5 ms
			t.Errorf("%d probes", probes)
		}
	})
}

func TestFuseBlows(t *testing.T) {
	for _, c := range []struct {
		armed, dying int
		want         bool
	}{
		{0, 0, false}, {1, 1, false}, {2, 2, false}, {3, 2, false}, {3, 3, true}, {4, 3, true}, {5, 3, true},
		{6, 3, true}, {7, 3, false}, {7, 4, true}, {8, 4, true}, {9, 4, false}, {10_000, 4999, false},
		{10_000, 5000, true}, {100, 2, false},
	} {
		if got := FuseBlows(c.armed, c.dying); got != c.want {
			t.Errorf("%d of %d dying: %v, want %v", c.dying, c.armed, got, c.want)
		}
	}
}

func TestHoldOncePerSilence(t *testing.T) {
	r := armed(t, Passive)
	start := r.now
	r.hold() // Up: there is nothing to hold
	r.wantState(wire.StateUp)
	r.run(start.Add(timeout) - 1)
	if !r.m.Dying(r.now) {
		t.Fatal("not dying just before its verdict")
	}
	r.hold()
	r.wantState(wire.StateSuspect)
	if r.m.Deadline() != start.Add(2*timeout) || r.m.Dying(r.now) {
		t.Fatalf("deadline %v, want twice the timeout", r.m.Deadline())
	}
	if r.m.nextProbe.After(r.now.Add(interval / 8)) {
		t.Error("held, but not probed")
	}
	r.hold()
	r.run(start.Add(2*timeout) - 1)
	r.wantNoVerdict()
	if r.m.Dying(r.now) || r.m.Stats().Holds != 1 {
		t.Errorf("held twice in one silence: %+v", r.m.Stats())
	}
	r.at(start.Add(2 * timeout))
	if ch := r.wantVerdict(wire.ReasonTimeout); ch.Silence != 2*timeout {
		t.Errorf("change %+v", ch)
	}
}

func TestHoldAgainInTheNextSilence(t *testing.T) {
	r := armed(t, Passive)
	for range 3 {
		r.after(timeout - 1)
		r.hold()
		r.after(10 * ms)
		r.beat()
		r.wantState(wire.StateUp)
	}
	if r.m.Stats().Holds != 3 {
		t.Errorf("%d holds, want 3", r.m.Stats().Holds)
	}
}

func TestDyingMeansWithinOneInterval(t *testing.T) {
	r := armed(t, Passive)
	due := r.m.Deadline()
	for _, c := range []struct {
		before time.Duration
		want   bool
	}{{timeout - interval, false}, {interval + 1, false}, {interval, true}, {1, true}, {0, true}, {-interval, true}} {
		r.m.state = wire.StateLate
		if got := r.m.Dying(due.Add(-c.before)); got != c.want {
			t.Errorf("%v before the verdict: %v, want %v", c.before, got, c.want)
		}
		r.m.state = wire.StateUp
		if r.m.Dying(due.Add(-c.before)) {
			t.Error("an Up session is dying")
		}
	}
}
