// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// fleetAt is an instant in milliseconds, so that tests read as plain numbers.
func fleetAt(ms int) mono.Instant { return mono.Instant(ms) * mono.Instant(time.Millisecond) }

// fleetRig drives a fleet of 100 ms x 3 in virtual time and collects all it
// wants, with the instants at which it wanted it.
type fleetRig struct {
	t     *testing.T
	f     *Fleet
	now   int // milliseconds
	beat  []int
	sess  []wire.State
	doors []fleetDoor
	// since the latest take
	faults  []Fault
	eager   []Eager
	learned []uint64
	log     []FleetEntry
}

type fleetDoor struct{ At, Index int }

const fleetSystem = 7001

func fleetConfig(n int) FleetConfig {
	cfg := FleetConfig{
		Interval: 100 * time.Millisecond, Timeout: 300 * time.Millisecond,
		CloseOnRoleChange: true, CloseOnStalePrimary: true,
	}
	for i := range n {
		cfg.Backends = append(cfg.Backends, FleetBackend{
			Number: i, Host: "db" + string(rune('1'+i)), Port: 5432, WatchdogPort: 27545,
		})
	}
	return cfg
}

func newFleetRig(t *testing.T, cfg FleetConfig) *fleetRig {
	t.Helper()
	r := &fleetRig{t: t, now: 1000}
	r.f = NewFleet(cfg, 0, fleetAt(r.now))
	r.beat, r.sess = make([]int, len(cfg.Backends)), make([]wire.State, len(cfg.Backends))
	return r
}

// do runs one call of the fleet at ms, after all ticks due before.
func (r *fleetRig) do(ms int, call func(now mono.Instant, out *Actions)) {
	r.t.Helper()
	r.run(ms)
	r.collect(call)
}

// run lets time pass to ms, ticking exactly when the fleet asks for it.
func (r *fleetRig) run(ms int) {
	r.t.Helper()
	for n := 0; r.f.Next() <= fleetAt(ms); n++ {
		if n > 10000 {
			r.t.Fatalf("the fleet asks for ticks without end at %d ms", r.now)
		}
		// Round up: ticks fall on whole milliseconds here.
		at := int((int64(r.f.Next()) + int64(time.Millisecond) - 1) / int64(time.Millisecond))
		if at > ms {
			break
		}
		r.now = max(r.now, at)
		r.collect(r.f.Tick)
	}
	r.now = max(r.now, ms)
}

func (r *fleetRig) collect(call func(now mono.Instant, out *Actions)) {
	var out Actions
	call(fleetAt(r.now), &out)
	for _, i := range out.AskDoor {
		r.doors = append(r.doors, fleetDoor{r.now, i})
	}
	r.faults = append(r.faults, out.Faults...)
	r.eager = append(r.eager, out.Eager...)
	r.log = append(r.log, out.Log...)
	if out.Learned != 0 {
		r.learned = append(r.learned, out.Learned)
	}
}

// session moves the session of instance i to a state.
func (r *fleetRig) session(ms, i int, to wire.State, why wire.Reason) {
	r.t.Helper()
	from := r.sess[i]
	if to == wire.StateUp {
		r.beat[i] = ms
	}
	r.sess[i] = to
	r.do(ms, func(now mono.Instant, out *Actions) {
		r.f.Changed(now, i, heartbeat.Change{
			At: now, From: from, To: to, Reason: why,
			LastValid: fleetAt(r.beat[i]), Silence: now.Sub(fleetAt(r.beat[i])),
		}, out)
	})
}

func (r *fleetRig) instance(ms, i int, s wire.Instance) {
	r.t.Helper()
	r.do(ms, func(now mono.Instant, out *Actions) { r.f.Instance(now, i, s, out) })
}

// arm brings the session of instance i up with a state.
func (r *fleetRig) arm(ms, i int, s wire.Instance) {
	r.t.Helper()
	r.session(ms, i, wire.StateUp, wire.ReasonArmed)
	r.instance(ms, i, s)
}

// lastBeat notes that the session heard its last valid frame at ms.
func (r *fleetRig) lastBeat(ms, i int) { r.run(ms); r.beat[i] = ms }

func (r *fleetRig) door(ms, i, asked int, o DoorOutcome) {
	r.t.Helper()
	r.do(ms, func(now mono.Instant, out *Actions) {
		r.f.Door(now, i, DoorResult{Asked: fleetAt(asked), Outcome: o}, out)
	})
}

func (r *fleetRig) kernel(ms, i int) {
	r.t.Helper()
	r.do(ms, func(now mono.Instant, out *Actions) { r.f.KernelLife(now, i, now, out) })
}

// take returns the faults since the last take as "index reason only".
func (r *fleetRig) take() []string {
	var got []string
	for _, f := range r.faults {
		s := string(rune('0'+f.Index)) + " " + f.Reason
		for _, t := range f.Only {
			s += " " + t.String()
		}
		if !f.Before.IsZero() {
			s += " before"
		}
		got = append(got, s)
	}
	r.faults = nil
	return got
}

func (r *fleetRig) wantFaults(want ...string) {
	r.t.Helper()
	if d := cmp.Diff(want, r.take()); d != "" {
		r.t.Errorf("faults at %d ms (-want +got):\n%s", r.now, d)
	}
}

func (r *fleetRig) wantDoors(want ...fleetDoor) {
	r.t.Helper()
	got := r.doors
	r.doors = nil
	if d := cmp.Diff(want, got); d != "" {
		r.t.Errorf("doors asked by %d ms (-want +got):\n%s", r.now, d)
	}
}

func (r *fleetRig) want(i int, mon Monitoring) {
	r.t.Helper()
	if got := r.view().Instances[i].Monitoring; got != mon {
		r.t.Errorf("instance %d at %d ms is %s, want %s", i, r.now, got, mon)
	}
}

func (r *fleetRig) wantLosers(want ...bool) {
	r.t.Helper()
	var got []bool
	for _, in := range r.view().Instances {
		got = append(got, in.Loser)
	}
	if d := cmp.Diff(want, got); d != "" {
		r.t.Errorf("losers at %d ms (-want +got):\n%s", r.now, d)
	}
}

func (r *fleetRig) logged(message string) int {
	n := 0
	for _, e := range r.log {
		if e.Message == message {
			n++
		}
	}
	return n
}

func (r *fleetRig) view() *View { return r.f.View(fleetAt(r.now)) }

func fleetPrimary(timeline uint32) wire.Instance {
	return wire.Instance{
		Attribute: wire.AttributePrimary, Status: wire.StatusUp, Timeline: timeline,
		SystemID: fleetSystem, Port: 5432, StartUS: 1,
	}
}

func fleetStandby() wire.Instance {
	s := fleetPrimary(1)
	s.Attribute = wire.AttributeStandby
	return s
}

func fleetWith(s wire.Instance, change func(*wire.Instance)) wire.Instance {
	change(&s)
	return s
}

// lateRig has one monitored primary whose last beat came at 2000 and which is
// late since 2125.
func lateRig(t *testing.T, cfg FleetConfig) *fleetRig {
	t.Helper()
	r := newFleetRig(t, cfg)
	r.arm(1000, 0, fleetPrimary(1))
	r.lastBeat(2000, 0)
	r.session(2125, 0, wire.StateLate, wire.ReasonLate)
	return r
}

// unmonitoredRig goes on: the door answered, the verdict fell at 2300. The
// kernel's last sign is the door's answer to the question of 2150.
func unmonitoredRig(t *testing.T, cfg FleetConfig) *fleetRig {
	t.Helper()
	r := lateRig(t, cfg)
	r.door(2160, 0, 2150, DoorAnswers)
	r.session(2300, 0, wire.StateDown, wire.ReasonTimeout)
	r.want(0, Unmonitored)
	r.wantDoors(fleetDoor{2150, 0})
	return r
}
