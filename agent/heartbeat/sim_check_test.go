// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// oracle is what the simulation itself knows about one end, without asking the
// machine.
type oracle struct {
	heard   mono.Instant // last valid frame of a relation
	paused  mono.Instant // last own pause that was noticed
	until   mono.Instant // latest instant of a verdict, but for hints
	grace   mono.Instant // end of the grace of a lost link; zero without a hint
	held    bool         // the fuse held this silence
	session uint64
	seq     uint64          // highest accepted in the session
	taken   map[uint64]bool // all accepted in the session
	armedIn uint64          // session that was Up last
	leaving bool            // its daemon stops

	window   mono.Instant // frames are counted per interval
	sent     int
	accepted int
}

func (e *end) notePause(now mono.Instant) {
	e.paused = now
	e.until, e.grace = max(e.until, now.Add(e.h.w.timeout)), 0
	e.sent -= 2
	e.h.w.tally.pauses++
}

func (e *end) noteHold(now mono.Instant) {
	if e.held {
		e.h.w.fail("%s: the fuse holds one silence twice", e)
	}
	e.held = true
	e.h.w.tally.holds++
	e.until, e.grace = e.latest().Add(e.h.w.timeout), 0
}

// noteSent bounds the rate: the schedule, the probes, and a few for each
// accepted frame and each pass in doubt.
func (e *end) noteSent(f *wire.Frame) {
	w := e.h.w
	if e.m != nil && w.tracing {
		w.say("%s: sends %s %d, ack %d", e, describeFrames([]wire.Frame{*f}), f.Seq, f.Beat.Ack)
	}
	if f.Flags&wire.FlagState != 0 && !Armed(f.Beat.State) {
		w.fail("%s: tells the instance state before it is armed", e)
	}
	if w.now.Sub(e.window) >= w.interval {
		e.window, e.sent, e.accepted = w.now, 0, 0
	}
	e.sent++
	probes := int(w.interval / min(max(w.interval/8, probeMin), probeMax))
	if most := 8 + probes + 3*e.accepted; e.sent > most {
		w.fail("%s: %d frames in an interval, at most %d expected", e, e.sent, most)
	}
}

// receive hands a frame over and watches what the machine makes of it.
func (e *end) receive(now mono.Instant, f *wire.Frame) {
	w := e.h.w
	before := e.m.Stats().Received
	session, valid := e.m.Session(), e.m.LastValid()
	var changes []Change
	e.step(func(out *Output) {
		e.m.Receive(now, f, out)
		if e.m.Stats().Received != before {
			newer := f.Session != e.session || f.Seq > e.seq
			e.accept(now, f, session)
			if !newer && f.Type == wire.TypeBeat && (len(out.Frames) > 0 && f.Flags&wire.FlagProbe == 0 || e.m.LastValid() != valid) {
				w.fail("%s: a frame behind a newer one did something", e)
			}
		}
		changes = out.Changes
	})
	if w.tracing {
		verb := "ignores"
		if e.m.Stats().Received != before {
			verb = "accepts"
		}
		w.say("%s: %s %s %d, ack %d", e, verb, describeFrames([]wire.Frame{*f}), f.Seq, f.Beat.Ack)
	}
	if len(changes) > 0 && e.m.Stats().Received == before {
		w.fail("%s: an invalid frame changed the state", e)
	}
}

func (e *end) accept(now mono.Instant, f *wire.Frame, session uint64) {
	w := e.h.w
	e.accepted++
	switch f.Type {
	case wire.TypeBeat, wire.TypeBye:
		if f.Session != session {
			w.fail("%s: accepted a frame of session %x", e, f.Session)
		}
		if f.Session != e.session {
			e.session, e.taken = f.Session, map[uint64]bool{}
		} else if e.taken[f.Seq] {
			w.fail("%s: accepted sequence number %d twice", e, f.Seq)
		}
		e.taken[f.Seq] = true
		if f.Seq < e.seq {
			w.tally.reordered++
			return // says nothing that the newer one has not said
		}
		e.seq = f.Seq
	case wire.TypeWelcome:
		e.session, e.seq, e.taken = f.Session, f.Seq, map[uint64]bool{}
	}
	if f.Type == wire.TypeBeat {
		if w.heardBy[f.Session] == nil {
			w.heardBy[f.Session] = new([2]bool)
		}
		w.heardBy[f.Session][e.h.side] = true
	}
	if f.Type == wire.TypeWelcome || f.Type == wire.TypeBeat && f.Beat.State != wire.StateDown {
		e.heard, e.held, e.grace = now, false, 0
		e.until = max(now.Add(w.timeout), e.pausedUntil())
	}
}

// pausedUntil is how long a noticed pause protects the peer. A frame that was
// heard ends the doubt, but a verdict of silence has its own full timeout then.
func (e *end) pausedUntil() mono.Instant {
	if e.paused.IsZero() {
		return 0
	}
	return e.paused.Add(e.h.w.timeout)
}

// noteChange holds each change of state against what the world knows.
func (e *end) noteChange(c Change) {
	w := e.h.w
	w.say("%s: %v -> %v (%v)", e, c.From, c.To, c.Reason)
	if c.To == wire.StateUp {
		if h := w.heardBy[e.m.Session()]; h == nil || !h[0] || !h[1] {
			w.fail("%s: armed before beats had passed both ways", e)
		}
	}
	if c.Reason == wire.ReasonArmed {
		w.tally.armed++
	}
	if c.Reason == wire.ReasonHeard && e.m.Session() != e.armedIn {
		w.tally.redialed++
	}
	if c.To == wire.StateUp {
		e.armedIn = e.m.Session()
		e.checkSameKeys()
	}
	if !c.Verdict() {
		return
	}
	w.tally.verdicts[c.Reason]++
	switch {
	case !Armed(c.From):
		w.fail("%s: an unarmed session gives a verdict", e)
	case c.Reason == wire.ReasonReplaced || e.leaving:
		w.fail("%s: an end that leaves by itself gives a verdict", e)
	}
	if w.now.After(w.settledAt) || w.faultless {
		w.fail("%s: a live peer is accused while all is well: %v", e, c.Reason)
	}
	inPause := !e.paused.IsZero() && c.At.Before(e.pausedUntil())
	if c.Reason == wire.ReasonTimeout || c.Reason == wire.ReasonLinkDown {
		e.checkHint(c)
		due := e.heard.Add(w.timeout)
		if e.grace != 0 {
			due = due.Min(e.grace)
		}
		if c.At.Before(due) || c.LastValid != e.heard {
			w.fail("%s: verdict %v after the last valid frame (it says %v)", e, c.At.Sub(e.heard), c.Silence)
		}
		if inPause {
			w.fail("%s: verdict of silence %v after an own pause", e, w.now.Sub(e.paused))
		}
	}
	if marked := inPause || e.paused.After(e.heard); marked != c.OwnPause {
		w.fail("%s: %v after an own pause, but the mark says %v", e, w.now.Sub(e.paused), c.OwnPause)
	}
}

// checkBounds runs after each pass: a verdict that is due has been given, and
// the next one is asked for in time.
func (e *end) checkBounds(now mono.Instant) {
	if !Armed(e.m.State()) {
		return
	}
	if !now.Before(e.latest()) {
		e.h.w.fail("%s: silent since %v and still %v", e, now.Sub(e.heard), e.m.State())
	}
	if e.m.Next().After(e.latest()) {
		e.h.w.fail("%s: wants to be woken %v after the verdict is due", e, e.m.Next().Sub(e.latest()))
	}
}

// checkAgreement holds when all has been well for long enough: each conmgr and
// the watchdog share one armed session, and the conmgr knows the instance.
func (w *world) checkAgreement() {
	for i, h := range w.clients {
		if len(h.ends) != 1 {
			w.fail("%s has %d machines", h.name, len(h.ends))
			return
		}
		m := h.ends[0].m
		var armed []*end
		for _, e := range w.watchdog.ends {
			if e.client == i && Armed(e.m.State()) {
				armed = append(armed, e)
			}
		}
		switch {
		case !Armed(m.State()):
			w.fail("%s is %v (%v) at the end", h.name, m.State(), m.Why())
		case len(armed) != 1 || armed[0].m.Session() != m.Session():
			w.fail("%s is armed in session %x, the watchdog has %d for it", h.name, m.Session(), len(armed))
		case m.Instance() != w.inst:
			w.fail("%s knows %+v, the instance is %+v", h.name, m.Instance(), w.inst)
		}
	}
}
