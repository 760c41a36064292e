// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// fleetWalk throws random but possible events at a fleet and checks after each
// what must hold whatever happens.
type fleetWalk struct {
	t      *testing.T
	seed   uint64
	rnd    *rand.Rand
	f      *Fleet
	router *Router
	cfg    FleetConfig
	now    mono.Instant
	in     []fleetWalker
	trace  []string
}

type fleetWalker struct {
	session   wire.State
	lastValid mono.Instant
	asked     mono.Instant   // latest question
	open      bool           // it has no result yet
	asks      []mono.Instant // all questions
	exempt    int            // how many may have come early
	owed      bool           // an application could be bound, and was not told
	before    Monitoring
}

const fleetWalkSteps = 150

func TestFleetRandom(t *testing.T) {
	t.Parallel()
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 300
	}
	for seed := range seeds {
		newFleetWalk(t, seed).run()
		if t.Failed() {
			return
		}
	}
}

func newFleetWalk(t *testing.T, seed uint64) *fleetWalk {
	w := &fleetWalk{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), now: fleetAt(1000)}
	w.cfg = fleetConfig(1 + w.rnd.IntN(3))
	w.cfg.CloseOnRoleChange, w.cfg.CloseOnStalePrimary = w.rnd.IntN(2) == 0, w.rnd.IntN(2) == 0
	w.cfg.Random = w.rnd.Float64
	w.f = NewFleet(w.cfg, 0, w.now)
	w.router = NewRouter(Policy{})
	w.in = make([]fleetWalker, len(w.cfg.Backends))
	return w
}

func (w *fleetWalk) run() {
	for range fleetWalkSteps {
		w.wait()
		i := w.rnd.IntN(len(w.in))
		if w.rnd.IntN(3) == 0 {
			w.instance(i)
		} else {
			w.other(i)
		}
		if w.t.Failed() {
			for _, line := range w.trace {
				w.t.Log(line)
			}
			return
		}
	}
}

// wait lets up to 400 ms pass, mostly with ticks when they are due, and with
// the heartbeat's own verdicts at their deadlines.
func (w *fleetWalk) wait() {
	target := w.now.Add(time.Duration(w.rnd.IntN(400)) * time.Millisecond)
	if w.rnd.IntN(30) == 0 { // an own pause: nothing is called
		w.now = target.Add(time.Duration(w.rnd.IntN(5000)) * time.Millisecond)
		w.pause()
		return
	}
	for {
		next, who := w.f.Next(), -1
		for i := range w.in {
			deadline := w.in[i].lastValid.Add(w.cfg.Timeout)
			if heartbeat.Armed(w.in[i].session) && !deadline.After(next) {
				next, who = deadline, i
			}
		}
		if next.After(target) {
			w.now = target
			return
		}
		w.now = max(w.now, next)
		if who >= 0 {
			w.change(who, wire.StateDown, wire.ReasonTimeout)
		} else {
			w.call("tick", -1, w.f.Tick)
		}
	}
}

// pause does what the heartbeat machines do after one: all armed sessions are
// suspect and get a timeout.
func (w *fleetWalk) pause() {
	for i := range w.in {
		if heartbeat.Armed(w.in[i].session) {
			w.change(i, wire.StateSuspect, wire.ReasonOwnPause)
			w.in[i].lastValid = w.now // deadline from now
		}
	}
}

func (w *fleetWalk) other(i int) {
	in := &w.in[i]
	switch w.rnd.IntN(8) {
	case 0, 1:
		if !heartbeat.Armed(in.session) || in.session != wire.StateUp || w.rnd.IntN(2) == 0 {
			in.lastValid = w.now
			w.change(i, wire.StateUp, wire.ReasonHeard)
		}
	case 2, 3:
		if in.session == wire.StateUp {
			w.change(i, wire.StateLate, []wire.Reason{wire.ReasonLate, wire.ReasonDisconnect}[w.rnd.IntN(2)])
		}
	case 4:
		if heartbeat.Armed(in.session) {
			ends := []wire.Reason{wire.ReasonPeerDown, wire.ReasonStop, wire.ReasonRestart, wire.ReasonLinkDown}
			w.change(i, wire.StateDown, ends[w.rnd.IntN(len(ends))])
		}
	case 5, 6:
		if in.open {
			in.open = false
			r := DoorResult{Asked: in.asked, Outcome: DoorOutcome(w.rnd.IntN(3))}
			w.call(fmt.Sprintf("door %s", r.Outcome), i, func(now mono.Instant, out *Actions) { w.f.Door(now, i, r, out) })
		}
	case 7:
		w.call("kernel", i, func(now mono.Instant, out *Actions) { w.f.KernelLife(now, i, now, out) })
	}
}

func (w *fleetWalk) instance(i int) {
	if !heartbeat.Armed(w.in[i].session) {
		return
	}
	s := wire.Instance{
		Attribute: wire.Attribute(1 + w.rnd.IntN(2)), Status: wire.Status(w.rnd.IntN(4)),
		Timeline: uint32(1 + w.rnd.IntN(3)), SystemID: fleetSystem, Port: 5432,
		StartUS: int64(1 + w.rnd.IntN(8)/7), ReadOnly: w.rnd.IntN(4) == 0,
	}
	if w.rnd.IntN(12) == 0 {
		s.SystemID = 1
	}
	w.call(fmt.Sprintf("instance %+v", s), i, func(now mono.Instant, out *Actions) { w.f.Instance(now, i, s, out) })
}

func (w *fleetWalk) change(i int, to wire.State, why wire.Reason) {
	in := &w.in[i]
	c := heartbeat.Change{At: w.now, From: in.session, To: to, Reason: why, LastValid: in.lastValid, Silence: w.now.Sub(in.lastValid)}
	if heartbeat.Armed(to) && to != wire.StateUp && (in.session == wire.StateUp || why == wire.ReasonOwnPause) {
		in.exempt++ // an episode begins
	}
	in.session = to
	before := w.f.View(w.now).Instances[i]
	out := w.call(fmt.Sprintf("%s -> %s: %s", c.From, to, why), i, func(now mono.Instant, out *Actions) { w.f.Changed(now, i, c, out) })
	after := w.f.View(w.now).Instances[i]
	if c.Verdict() && (before.Monitoring == Monitored || before.Monitoring == Unmonitored) &&
		after.Monitoring != Unmonitored && after.Monitoring != Faulted {
		w.fail("a verdict left instance %d %s", i, after.Monitoring)
	}
	if after.Monitoring == Unmonitored && len(out.Faults) > 0 {
		w.fail("becoming unmonitored disconnected somebody: %v", out.Faults)
	}
}

// call runs one call and checks the invariants.
func (w *fleetWalk) call(what string, i int, call func(now mono.Instant, out *Actions)) *Actions {
	for k, in := range w.f.View(w.now).Instances {
		w.in[k].before = in.Monitoring
	}
	var out Actions
	call(w.now, &out)
	v := w.f.View(w.now)
	w.trace = append(w.trace, fmt.Sprintf("%d ms %d %s: faults %v doors %v", w.now/1e6, i, what, out.Faults, out.AskDoor))
	for _, k := range out.AskDoor {
		w.asked(k)
	}
	for _, f := range out.Faults {
		w.checkFault(f)
	}
	w.checkOwed(v, &out)
	w.checkRoutes(v)
	if next := w.f.Next(); !next.After(w.now) {
		w.fail("next %d ms is not after now", next/1e6)
	}
	return &out
}

func (w *fleetWalk) asked(k int) {
	in := &w.in[k]
	if m := w.in[k].before; m == Foreign || m == Unknown {
		w.fail("asked the door of instance %d which is %s", k, m)
	}
	if n := len(in.asks); n > 0 && w.now.Sub(in.asks[n-1]) < 5*time.Second {
		// Early questions are an episode's first: a doubt, a silent kernel.
		switch {
		case w.f.members[k].opinion.silent:
		case in.exempt > 0:
			in.exempt = 0
		default:
			w.fail("asked the door of instance %d again after %v without a new episode", k, w.now.Sub(in.asks[n-1]))
		}
	}
	in.asks, in.asked, in.open = append(in.asks, w.now), w.now, true
}

func (w *fleetWalk) checkFault(f Fault) {
	in := &w.in[f.Index]
	if f.At != w.now {
		w.fail("fault dated %d ms", f.At/1e6)
	}
	if !in.owed {
		w.fail("fault %q of instance %d that nobody could be bound to, or a second one for the same loss", f.Reason, f.Index)
	}
	if in.before != Monitored && in.before != Unmonitored {
		w.fail("fault %q of instance %d that was %s", f.Reason, f.Index, in.before)
	}
	if f.Reason == faultTimeout && in.before == Monitored && heartbeat.Armed(in.session) {
		w.fail("instance %d faulted for its silence without a verdict of the heartbeat", f.Index)
	}
	if f.Only == nil && f.Before.IsZero() {
		in.owed = false
	}
}

// checkOwed follows who may be bound: everything routable after a call; and
// what left use must have been told in the same call.
func (w *fleetWalk) checkOwed(v *View, out *Actions) {
	for k := range v.Instances {
		now := &v.Instances[k]
		used := now.Monitoring == Monitored || now.Monitoring == Unmonitored
		if !used && w.in[k].owed {
			w.fail("instance %d became %s and its applications were not told", k, now.Monitoring)
		}
		if now.Routable() {
			w.in[k].owed = true
		}
		if now.Monitoring != w.in[k].before && !out.ViewChanged {
			w.fail("instance %d changed without a view", k)
		}
	}
}

func (w *fleetWalk) checkRoutes(v *View) {
	for t := range Target(len(targetNames)) {
		found, _ := w.router.Route(v, t)
		if (t == Primary || t == ReadWrite) && len(found) > 1 {
			w.fail("%d primaries offered", len(found))
		}
		for _, k := range found {
			in := &v.Instances[k]
			if in.Monitoring != Monitored && in.Monitoring != Unmonitored || in.Loser || in.Instance.Status == wire.StatusDown {
				w.fail("%s goes to instance %d: %s, loser %v, %s", t, k, in.Monitoring, in.Loser, in.Instance.Status)
			}
		}
	}
}

func (w *fleetWalk) fail(format string, args ...any) {
	w.t.Errorf("seed %d at %d ms: "+format, append([]any{w.seed, w.now / 1e6}, args...)...)
}
