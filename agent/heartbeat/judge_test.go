// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func TestVerdictExactlyAtTheDeadline(t *testing.T) {
	for _, c := range []struct{ interval, timeout time.Duration }{
		{10 * ms, 10 * ms}, {10 * ms, 30 * ms}, {50 * ms, 150 * ms}, {100 * ms, 500 * ms},
		{time.Second, 500 * ms}, {time.Second, 5 * time.Second}, {200 * time.Second, 600 * time.Second},
	} {
		bothRoles(t, func(t *testing.T, r *rig) {
			last := r.now
			verdict := last.Add(c.timeout)
			r.run(verdict - 1) // with all its probes and beats
			r.wantNoVerdict()
			if r.m.Next() != verdict {
				t.Fatalf("next %v, want the verdict at %v", r.m.Next(), verdict)
			}
			r.at(verdict)
			ch := r.wantVerdict(wire.ReasonTimeout)
			if ch.At != verdict || ch.LastValid != last || ch.Silence != c.timeout || ch.OwnPause {
				t.Errorf("change %+v, want at %v after %v", ch, verdict, last)
			}
		}, timers(c.interval, c.timeout))
	}
}

func TestEveryValidFrameMovesTheDeadline(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		for range 20 {
			r.after(timeout - 1)
			r.beat()
			if want := r.now.Add(timeout); r.m.Deadline() != want {
				t.Fatalf("deadline %v, want %v", r.m.Deadline(), want)
			}
			r.wantState(wire.StateUp)
		}
		r.wantNoVerdict()
	})
}

// Probes, own beats, redials and refusals leave the deadline where it was.
func TestOnlyValidFramesMoveTheDeadline(t *testing.T) {
	r := armed(t, Active)
	want := r.m.Deadline()
	same := func(what string) {
		t.Helper()
		if got := r.m.Deadline(); got != want {
			t.Fatalf("%s moved the deadline by %v", what, got.Sub(want))
		}
	}
	r.after(3 * interval)
	r.wantState(wire.StateLate)
	same("probing")
	r.broken()
	same("a broken transport")
	r.tick()
	same("a dial")
	r.broken()
	same("a failed dial")
	r.after(interval)
	r.do(func() { r.m.Connected(r.now, &r.out) })
	same("a connect")
	r.refuse()
	same("a refusal")
	r.at(want - 1)
	r.wantNoVerdict()
	r.at(want)
	r.wantVerdict(wire.ReasonTimeout)
}

func TestInvalidFramesDoNotMoveTheDeadline(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		want := r.m.Deadline()
		r.after(interval)
		stale := r.beatFrame()
		stale.Seq = r.m.heardSeq
		foreign := r.beatFrame()
		foreign.Session++
		unsent := r.beatFrame()
		unsent.Beat.Ack = r.m.seq
		for _, f := range []wire.Frame{stale, foreign, unsent} {
			r.receive(f)
		}
		if r.m.Deadline() != want || r.m.Stats().Invalid != 3 {
			t.Errorf("deadline %v, want %v; invalid %d", r.m.Deadline(), want, r.m.Stats().Invalid)
		}
	})
}

// A frame that is read in the very pass in which the verdict is due counts.
func TestDrainBeforeJudging(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.run(r.m.Deadline() - 1)
		r.now += 50
		r.beat()
		r.tick()
		r.wantState(wire.StateUp)
		r.wantNoVerdict()
	})
}

func TestLateAfter(t *testing.T) {
	for _, c := range []struct{ interval, timeout, want time.Duration }{
		{100 * ms, 500 * ms, 125 * ms},
		{100 * ms, 200 * ms, 125 * ms}, // two intervals: both rules agree
		{100 * ms, 192 * ms, 120 * ms}, // five eighths
		{100 * ms, 80 * ms, 50 * ms},
		{time.Second, time.Second, 625 * ms},
		{time.Second, 10 * time.Minute, 1250 * ms},
	} {
		bothRoles(t, func(t *testing.T, r *rig) {
			start := r.now
			r.run(start.Add(c.want) - 1)
			r.wantState(wire.StateUp)
			r.at(start.Add(c.want))
			r.wantState(wire.StateLate)
			if ch := r.out.Changes[0]; ch.Reason != wire.ReasonLate || ch.Silence != c.want {
				t.Errorf("change %+v, want late after %v", ch, c.want)
			}
		}, timers(c.interval, c.timeout))
	}
}

func TestArmedNeedsBeatsBothWays(t *testing.T) {
	t.Run("active", func(t *testing.T) {
		r := active(t)
		r.connect()
		r.wantState(wire.StateInit) // a WELCOME proves nothing
		f := r.beatFrame()
		f.Beat.Ack = 1 // our HELLO
		r.receive(f)
		r.wantState(wire.StateInit)
		f = r.beatFrame()
		f.Beat.Ack = 2 // our first BEAT
		r.receive(f)
		r.wantState(wire.StateUp)
	})
	t.Run("passive", func(t *testing.T) {
		r := passive(t)
		for _, ack := range []uint64{0, 1} { // nothing, our WELCOME
			f := r.beatFrame()
			f.Beat.Ack = ack
			r.receive(f)
			r.wantState(wire.StateInit)
		}
		r.beat()
		r.wantState(wire.StateUp)
	})
}

// The acknowledgement of a repeated WELCOME is not that of the BEAT before it.
func TestRepeatedWelcomeProvesNothing(t *testing.T) {
	r := passive(t) // sent: WELCOME 1, BEAT 2
	r.peer++
	r.receive(r.helloFrame()) // sent: WELCOME 3, BEAT 4
	r.wantSent("WELCOME BEAT(init probe)")
	f := r.beatFrame()
	f.Beat.Ack = 3
	r.receive(f)
	r.wantState(wire.StateInit)
	f = r.beatFrame()
	f.Beat.Ack = 4
	r.receive(f)
	r.wantState(wire.StateUp)
}

// Who records the HELLO and sends it again must not put off the arming.
func TestReplayedHelloDoesNothing(t *testing.T) {
	r := passive(t) // sent: WELCOME 1, BEAT 2
	hello := r.helloFrame()
	r.receive(hello)
	r.wantSent("")
	r.beat()
	r.receive(hello)
	r.wantSent("")
	r.wantState(wire.StateUp)
	if got := r.m.Stats(); got.Received != 1 || got.Invalid != 2 {
		t.Errorf("counts %+v", got)
	}
}

func TestUnarmedGivesNoVerdict(t *testing.T) {
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		if Armed(before.state) || Armed(r.m.State()) {
			return
		}
		for range 50 {
			r.after(interval)
		}
		r.wantNoVerdict()
		if r.m.Deadline() != mono.Never {
			t.Errorf("%s, %s: an unarmed session has a deadline", s.name, e.name)
		}
	})
}

// Nobody learns the instance state by a HELLO alone.
func TestInstanceOnlyWhenArmed(t *testing.T) {
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		if s.role == Active {
			return
		}
		r.m.Push(r.now, &r.out)
		r.after(3 * interval)
		for _, f := range r.frames {
			has := f.Flags&wire.FlagState != 0
			if want := f.Type == wire.TypeBeat && Armed(f.Beat.State); has != want {
				t.Fatalf("%s, %s: %s in state %v with instance: %v", s.name, e.name, f.Type, f.Beat.State, has)
			}
			if !has && f.Beat.Instance != (wire.Instance{}) {
				t.Fatalf("%s, %s: an unflagged instance", s.name, e.name)
			}
		}
	})
}

func TestByeKinds(t *testing.T) {
	for kind, why := range map[wire.ByeKind]wire.Reason{
		wire.ByeStop: wire.ReasonStop, wire.ByeRestart: wire.ReasonRestart,
		wire.ByeShutdown: wire.ReasonShutdown, wire.ByeLeave: wire.ReasonLeave, 99: wire.ReasonStop,
	} {
		bothRoles(t, func(t *testing.T, r *rig) {
			r.after(10 * ms)
			r.bye(kind)
			if ch := r.wantVerdict(why); ch.LastValid != r.now || ch.Silence != 0 {
				t.Errorf("change %+v: the BYE itself was heard", ch)
			}
			if r.out.Close != CloseFlush || len(r.out.Frames) != 0 {
				t.Errorf("close %v sent %q, want a quiet flush", r.out.Close, r.sent())
			}
		})
	}
}

// An end that leaves by itself says BYE, and judges nobody.
func TestOwnStopIsNoVerdict(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.do(func() { r.m.Stop(r.now, wire.ByeRestart, &r.out) })
		r.wantSent("BYE(restart)")
		r.wantNoVerdict()
		if ch := r.out.Changes[0]; !ch.Own || ch.To != wire.StateDown || ch.Reason != wire.ReasonRestart {
			t.Errorf("change %+v", ch)
		}
		if r.out.Close != CloseFlush || r.m.Next() != r.m.Next().Add(1) {
			t.Errorf("close %v next %v, want flush and never", r.out.Close, r.m.Next())
		}
		r.tick()
		r.beat()
		r.wantState(wire.StateDown)
		r.wantSent("")
	})
}

func TestReplacedIsNoVerdict(t *testing.T) {
	t.Run("passive", func(t *testing.T) {
		r := armed(t, Passive)
		r.do(func() { r.m.Replace(r.now, &r.out) })
		r.wantNoVerdict()
		r.wantState(wire.StateDown)
		r.wantSent("BEAT(down)")
		if f := r.out.Frames[0]; f.Beat.Reason != wire.ReasonReplaced || r.out.Close != CloseReset {
			t.Errorf("reason %v close %v", f.Beat.Reason, r.out.Close)
		}
	})
	// The told end keeps its relation: a new session exists, or will in an interval.
	t.Run("active", func(t *testing.T) {
		r := armed(t, Active)
		deadline := r.m.Deadline()
		r.after(10 * ms)
		r.peerDown(wire.ReasonReplaced)
		r.wantNoVerdict()
		r.wantState(wire.StateLate)
		if r.m.Deadline() != deadline || r.m.Next() != r.now.Add(interval) {
			t.Errorf("deadline %v next %v", r.m.Deadline(), r.m.Next())
		}
	})
	t.Run("active, suspect stays suspect", func(t *testing.T) {
		r := armed(t, Active)
		r.paused(timeout)
		r.peerDown(wire.ReasonReplaced)
		r.wantNoVerdict()
		r.wantState(wire.StateSuspect)
	})
}

// One-way loss: the end that still hears is told.
func TestPeerDown(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.after(50 * ms)
		r.peerDown(wire.ReasonTimeout)
		if ch := r.wantVerdict(wire.ReasonPeerDown); ch.LastValid != r.now || ch.Silence != 0 {
			t.Errorf("change %+v: the peer was heard just now", ch)
		}
	})
}

func TestDownIsToldBeforeTheReset(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.run(r.m.Deadline() - 1)
		r.deadline()
		r.wantSent("BEAT(down)")
		if f := r.out.Frames[0]; f.Beat.Reason != wire.ReasonTimeout || r.out.Close != CloseReset {
			t.Errorf("reason %v close %v", f.Beat.Reason, r.out.Close)
		}
	})
}
