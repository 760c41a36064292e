// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// scheduled runs a machine that hears something every interval, and returns
// when it sent the beats of its schedule. Each Tick comes later than asked by
// what lag says.
func scheduled(r *rig, n int, lag func(i int) time.Duration) (beats []mono.Instant) {
	for i := 0; len(beats) < n; i++ {
		next := r.m.Next()
		r.at(next.Add(lag(i)))
		if len(r.out.Frames) > 0 && r.out.Frames[0].Flags&wire.FlagProbe == 0 {
			beats = append(beats, r.now)
		}
		r.beat()
	}
	return beats
}

func TestBeatsDoNotDrift(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		start := r.m.nextBeat
		for i, at := range scheduled(r, 1000, func(i int) time.Duration { return time.Duration(i%7) * ms }) {
			due := start.Add(time.Duration(i) * interval)
			if at.Before(due) || at.Sub(due) > 6*ms {
				t.Fatalf("beat %d at %v, due at %v", i, at, due)
			}
		}
	})
}

func TestMissedBeatsAreNotMadeUp(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		due := r.m.nextBeat
		r.now = due.Add(3*interval + 40*ms)
		r.beat()
		r.tick()
		r.wantSent(describeFrames(r.out.Frames[:1]))
		if want := due.Add(4 * interval); r.m.nextBeat != want {
			t.Errorf("next beat %v, want %v", r.m.nextBeat, want)
		}
		r.tick()
		r.wantSent("")
	})
}

// Exactly one whole interval late: the next one is due a whole interval later.
func TestBeatLateByAnInterval(t *testing.T) {
	r := armed(t, Passive)
	due := r.m.nextBeat
	r.now = due.Add(interval)
	r.beat()
	r.tick()
	if want := due.Add(2 * interval); r.m.nextBeat != want {
		t.Errorf("next beat %v, want %v", r.m.nextBeat, want)
	}
}

func TestProbePace(t *testing.T) {
	for _, c := range []struct{ interval, timeout, want time.Duration }{
		{10 * ms, 100 * ms, 5 * ms}, {40 * ms, 400 * ms, 5 * ms}, {48 * ms, 400 * ms, 6 * ms},
		{100 * ms, 500 * ms, 12500 * time.Microsecond}, {time.Second, 5 * time.Second, 125 * ms},
		{2 * time.Second, 10 * time.Second, 250 * ms}, {60 * time.Second, 300 * time.Second, 250 * ms},
	} {
		bothRoles(t, func(t *testing.T, r *rig) {
			r.m.stats.RTT = ms
			deadline := r.m.Deadline()
			r.m.nextBeat = mono.Never // only probes
			var probes []mono.Instant
			for r.m.Next().Before(deadline) {
				r.at(r.m.Next())
				probes = append(probes, r.now)
			}
			reserve := r.m.Stats().RTT + probeSlack
			for i, at := range probes[:len(probes)-1] {
				gap := probes[i+1].Sub(at)
				if last := i == len(probes)-2; gap != c.want && (!last || gap > c.want) {
					t.Fatalf("%v x %v: probe %d of %d after %v, want %v", c.interval, c.timeout, i+1, len(probes), gap, c.want)
				}
			}
			if last := probes[len(probes)-1]; last != deadline.Add(-reserve) {
				t.Errorf("%v x %v: last probe %v before the deadline, want %v", c.interval, c.timeout, deadline.Sub(last), reserve)
			}
		}, timers(c.interval, c.timeout))
	}
}

func TestAnswerAtOnceAtMostOnePer2ms(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		var answers []mono.Instant
		for i := range 100 {
			r.now = epoch.Add(time.Second + time.Duration(i)*500*time.Microsecond)
			r.probe()
			for _, f := range r.out.Frames {
				if f.Flags&wire.FlagAnswer != 0 {
					answers = append(answers, r.now)
					if f.Flags&wire.FlagProbe != 0 || f.Beat.Ack != r.peer {
						t.Fatalf("answer %+v %+v", f.Header, f.Beat)
					}
				}
			}
		}
		if len(answers) != 25 || answers[0] != epoch.Add(time.Second) {
			t.Fatalf("%d answers, the first at %v", len(answers), answers[0])
		}
		for i, at := range answers[1:] {
			if at.Sub(answers[i]) != 2*ms {
				t.Errorf("%v between answers", at.Sub(answers[i]))
			}
		}
	})
}

func TestOrdinaryBeatsAreNotAnswered(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.after(10 * ms)
		r.beat()
		r.wantSent("")
	})
}

// Each change of state is told at once, with the new state and its reason.
func TestStateChangeBeatsAtOnce(t *testing.T) {
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		for _, c := range r.out.Changes {
			open := before.link == linkOpen && c.Reason != wire.ReasonDisconnect && c.Reason != wire.ReasonReplaced
			open = open && e.covers != "Lost"
			bye := c.Reason >= wire.ReasonStop && c.Reason <= wire.ReasonLeave
			if !open || bye || c.From == wire.StateDown {
				continue
			}
			if !slices.ContainsFunc(r.out.Frames, func(f wire.Frame) bool {
				return f.Beat.State == c.To && f.Beat.Reason == c.Reason
			}) {
				t.Errorf("%s %s, %s: %v -> %v (%v) was not told: %s", roleName(s.role), s.name, e.name, c.From, c.To, c.Reason, r.sent())
			}
		}
	})
}

func TestPushSendsAtOnce(t *testing.T) {
	r := armed(t, Passive)
	r.after(10 * ms)
	r.inst.Attribute, r.inst.Generation = wire.AttributeStandby, 9
	r.do(func() { r.m.Push(r.now, &r.out) })
	r.wantSent("BEAT(up instance)")
	if got := r.out.Frames[0].Beat.Instance; got != r.inst {
		t.Errorf("instance %+v, want %+v", got, r.inst)
	}
}

func TestInstanceIsTold(t *testing.T) {
	r := armed(t, Active)
	tell := func(inst wire.Instance, want bool) {
		t.Helper()
		f := r.beatFrame()
		f.Flags, f.Beat.Instance = wire.FlagState, inst
		r.receive(f)
		if r.out.Instance != want || r.m.Instance() != inst {
			t.Errorf("told %v, want %v; instance %+v", r.out.Instance, want, r.m.Instance())
		}
	}
	inst := wire.Instance{Attribute: wire.AttributePrimary, WAL: 1, Generation: 1}
	tell(inst, true)
	tell(inst, false)
	inst.WAL = 2 // moves all the time: worth no word
	tell(inst, false)
	inst.Attribute = wire.AttributeStandby
	tell(inst, true)
	r.beat() // a beat without the state changes nothing
	if r.out.Instance || r.m.Instance() != inst {
		t.Error("a beat without an instance changed it")
	}
}

// What a conmgr signals is told at once and rides in every beat.
func TestSignals(t *testing.T) {
	a := armed(t, Active)
	a.after(10 * ms)
	a.do(func() { a.m.Signal(a.now, wire.FlagSeek|wire.FlagState, &a.out) })
	a.wantSent("BEAT(up)")
	if got := a.out.Frames[0].Flags; got != wire.FlagSeek || a.m.Signals() != wire.FlagSeek {
		t.Errorf("flags %v signals %v, want only the signal", got, a.m.Signals())
	}
	a.do(func() { a.m.Signal(a.now, wire.FlagSeek, &a.out) })
	a.wantSent("") // nothing new
	a.at(a.m.nextBeat)
	if a.out.Frames[0].Flags&wire.Signals != wire.FlagSeek {
		t.Error("the next beat does not carry the signal")
	}
	p := armed(t, Passive)
	for _, c := range []struct {
		flags wire.Flags
		told  bool
	}{{wire.FlagSeek, true}, {wire.FlagSeek, false}, {wire.FlagSeek | wire.FlagSlow, true}, {0, true}, {0, false}} {
		f := p.beatFrame()
		f.Flags = c.flags
		p.receive(f)
		if p.out.Signal != c.told || p.m.Signals() != c.flags {
			t.Errorf("flags %v: told %v, want %v; signals %v", c.flags, p.out.Signal, c.told, p.m.Signals())
		}
	}
}

// Each new session tells its first state, even when it is the old one.
func TestInstanceIsToldInEachSession(t *testing.T) {
	r := armed(t, Active)
	for want := true; ; want = false {
		f := r.beatFrame()
		f.Flags = wire.FlagState
		r.receive(f)
		if r.out.Instance != want {
			t.Fatalf("told %v, want %v", r.out.Instance, want)
		}
		if !want {
			break
		}
	}
	r.after(interval)
	r.broken()
	r.connect()
	f := r.beatFrame()
	f.Flags = wire.FlagState
	r.receive(f)
	if !r.out.Instance {
		t.Error("the new session's state was not told")
	}
}

func TestBooksOfTheSequence(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		before := r.m.Stats()
		r.peer += 4 // four were lost
		r.now = r.now.Add(3 * ms)
		r.probe()
		b := r.out.Frames[0].Beat
		if got := r.m.Stats().Lost - before.Lost; got != 4 || b.Lost != 4 || b.Ack != r.peer || b.AckDelayUS != 0 {
			t.Errorf("lost %d, told %+v", got, b)
		}
		r.now = r.m.nextBeat
		r.tick()
		if got := r.out.Frames[len(r.out.Frames)-1].Beat.AckDelayUS; got != 97_000 {
			t.Errorf("ack delay %d µs, want 97000", got)
		}
		f := r.beatFrame()
		f.Beat.Lost = 11
		r.receive(f)
		if r.m.Stats().PeerLost != 11 {
			t.Errorf("the peer's loss is %d", r.m.Stats().PeerLost)
		}
		f = r.beatFrame()
		f.Seq = 1<<64 - 1 // spoils its own session and nothing else
		r.receive(f)
		f.Seq = 1
		r.receive(f)
	})
}

func TestRoundTrip(t *testing.T) {
	r := armed(t, Passive)
	r.m.stats.RTT = 0
	sample := func(rtt, held time.Duration) {
		r.at(r.m.nextBeat)
		r.now = r.now.Add(rtt + held)
		f := r.beatFrame()
		f.Beat.AckDelayUS = uint32(held.Microseconds())
		r.receive(f)
	}
	sample(8*ms, 20*ms)
	if got := r.m.Stats().RTT; got != 8*ms {
		t.Fatalf("first round trip %v, want 8 ms", got)
	}
	sample(16*ms, 0)
	if got := r.m.Stats().RTT; got != 9*ms {
		t.Errorf("smoothed round trip %v, want 9 ms", got)
	}
	f := r.beatFrame()
	f.Beat.AckDelayUS = 1<<32 - 1 // a lie gives no negative time
	r.receive(f)
	if got := r.m.Stats().RTT; got <= 0 || got > 9*ms {
		t.Errorf("round trip %v", got)
	}
}
