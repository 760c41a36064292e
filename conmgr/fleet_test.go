// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net/netip"
	"slices"
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

func TestFleetVerdictTable(t *testing.T) {
	t.Parallel()
	door := func(o DoorOutcome) func(*fleetRig) {
		return func(r *fleetRig) { r.door(2160, 0, 2150, o) }
	}
	tests := []struct {
		name    string
		policy  SilencePolicy
		opinion func(*fleetRig)
		reason  wire.Reason
		want    Monitoring
		fault   []string
	}{
		{"door answers", SilenceTolerate, door(DoorAnswers), wire.ReasonTimeout, Unmonitored, nil},
		{"door refused", SilenceTolerate, door(DoorRefused), wire.ReasonTimeout, Faulted, []string{"0 down"}},
		{"door silent", SilenceTolerate, door(DoorNoAnswer), wire.ReasonTimeout, Faulted, []string{"0 timeout"}},
		{"door silent, kernel alive", SilenceTolerate, func(r *fleetRig) {
			r.door(2160, 0, 2150, DoorNoAnswer)
			r.kernel(2290, 0)
		}, wire.ReasonTimeout, Faulted, []string{"0 timeout"}},
		{"nothing heard from the door yet", SilenceTolerate, func(*fleetRig) {}, wire.ReasonTimeout, Faulted, []string{"0 timeout"}},
		{"link down, door silent", SilenceTolerate, func(*fleetRig) {}, wire.ReasonLinkDown, Faulted, []string{"0 link down"}},
		{"link down, door answers", SilenceTolerate, door(DoorAnswers), wire.ReasonLinkDown, Unmonitored, nil},
		{"replaced counts as silence", SilenceTolerate, func(*fleetRig) {}, wire.ReasonReplaced, Faulted, []string{"0 timeout"}},
		{"peer gave up though the door answers", SilenceTolerate, door(DoorAnswers), wire.ReasonPeerDown, Faulted, []string{"0 peer gave up"}},
		{"bye stop", SilenceTolerate, func(*fleetRig) {}, wire.ReasonStop, Unmonitored, nil},
		{"bye restart", SilenceTolerate, func(*fleetRig) {}, wire.ReasonRestart, Unmonitored, nil},
		{"bye shutdown", SilenceTolerate, func(*fleetRig) {}, wire.ReasonShutdown, Unmonitored, nil},
		{"bye leave", SilenceTolerate, func(*fleetRig) {}, wire.ReasonLeave, Unmonitored, nil},
		{"seed: door answers", SilenceFault, door(DoorAnswers), wire.ReasonTimeout, Faulted, []string{"0 timeout"}},
		{"seed: bye", SilenceFault, door(DoorAnswers), wire.ReasonStop, Faulted, []string{"0 stop"}},
		{"answer asked before the last frame", SilenceTolerate, func(r *fleetRig) {
			r.door(2160, 0, 2150, DoorAnswers)
			r.lastBeat(2170, 0) // heard, though no change was reported
		}, wire.ReasonTimeout, Faulted, []string{"0 timeout"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := fleetConfig(1)
			cfg.AgentSilence = tt.policy
			r := lateRig(t, cfg)
			tt.opinion(r)
			r.run(2299)
			r.wantFaults()
			r.want(0, Monitored)
			r.session(2300, 0, wire.StateDown, tt.reason)
			r.want(0, tt.want)
			for _, f := range r.faults {
				if f.At != fleetAt(2300) || f.Silence != fleetAt(2300).Sub(fleetAt(r.beat[0])) {
					t.Errorf("fault at %v after a silence of %v, want at the verdict of 2300 ms", f.At, f.Silence)
				}
			}
			r.wantFaults(tt.fault...)
			if tt.want == Unmonitored && r.logged("instance unmonitored") != 1 ||
				tt.want == Faulted && r.logged("instance faulted") != 1 {
				t.Errorf("log %v, want one warning", r.log)
			}
		})
	}
}

func TestFleetDoorIsAskedAtHalfTheTimeout(t *testing.T) {
	t.Parallel()
	r := lateRig(t, fleetConfig(1))
	r.run(2149)
	r.wantDoors()
	r.run(2150)
	r.wantDoors(fleetDoor{2150, 0})

	// A long timeout: again every 5 s while the silence lasts.
	cfg := fleetConfig(1)
	cfg.Interval, cfg.Timeout = 10*time.Second, 20*time.Second
	r = newFleetRig(t, cfg)
	r.arm(1000, 0, fleetPrimary(1))
	r.session(13500, 0, wire.StateLate, wire.ReasonLate)
	r.run(20999)
	r.wantDoors(fleetDoor{13500, 0}, fleetDoor{18500, 0})
}

func TestFleetBrokenConnectionAsksAtOnce(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.lastBeat(2000, 0)
	r.session(2010, 0, wire.StateLate, wire.ReasonDisconnect)
	r.wantDoors(fleetDoor{2010, 0})
	r.door(2012, 0, 2010, DoorAnswers)
	// The agent is back in time: nothing, and nothing is asked any more.
	r.session(2200, 0, wire.StateUp, wire.ReasonArmed)
	r.instance(2200, 0, fleetPrimary(1))
	r.run(20000)
	r.wantDoors()
	r.wantFaults()
	r.want(0, Monitored)

	// Broken again just before the verdict: its host lived then.
	r = newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.lastBeat(2000, 0)
	r.session(2010, 0, wire.StateLate, wire.ReasonDisconnect)
	r.door(2012, 0, 2010, DoorAnswers)
	r.session(2290, 0, wire.StateLate, wire.ReasonDisconnect)
	r.session(2300, 0, wire.StateDown, wire.ReasonTimeout)
	r.run(3000)
	r.wantDoors(fleetDoor{2010, 0}, fleetDoor{2590, 0})

	// Late first, then broken: the first question of the episode is not lost.
	r = lateRig(t, fleetConfig(1))
	r.session(2130, 0, wire.StateLate, wire.ReasonDisconnect)
	r.wantDoors(fleetDoor{2130, 0})
	r.session(2140, 0, wire.StateLate, wire.ReasonDisconnect)
	r.run(2300)
	r.wantDoors()
}

func TestFleetFirstOfEachEpisodeIsExempt(t *testing.T) {
	t.Parallel()
	r := lateRig(t, fleetConfig(1))
	r.run(2160)
	r.session(2170, 0, wire.StateUp, wire.ReasonHeard)
	r.session(2300, 0, wire.StateLate, wire.ReasonLate)
	r.run(2440)
	r.wantDoors(fleetDoor{2150, 0}, fleetDoor{2320, 0})
	// The answer to the question of the episode before says nothing now.
	r.door(2441, 0, 2150, DoorAnswers)
	r.session(2470, 0, wire.StateDown, wire.ReasonTimeout)
	r.wantFaults("0 timeout")
}

func TestFleetOwnPauseAsksAgain(t *testing.T) {
	t.Parallel()
	r := lateRig(t, fleetConfig(1))
	r.door(2160, 0, 2150, DoorNoAnswer)
	// The machine stood still; the session has until 4000 + 300 to prove itself.
	r.beat[0] = 2000
	r.session(4000, 0, wire.StateSuspect, wire.ReasonOwnPause)
	r.wantDoors(fleetDoor{2150, 0}, fleetDoor{4000, 0})
	r.door(4010, 0, 4000, DoorAnswers)
	r.session(4300, 0, wire.StateDown, wire.ReasonTimeout)
	r.want(0, Unmonitored)
	r.wantFaults()
}

func TestFleetDoorEveryFiveSecondsWithJitter(t *testing.T) {
	t.Parallel()
	cfg := fleetConfig(1)
	cfg.Random = func() float64 { return 0.5 }
	r := unmonitoredRig(t, cfg)
	for ms := 2400; ms <= 20000; ms += 100 {
		r.kernel(ms, 0)
		if n := len(r.doors); n > 0 && r.doors[n-1].At > ms-100 {
			r.door(ms, 0, r.doors[n-1].At, DoorAnswers)
		}
	}
	r.wantDoors(fleetDoor{7650, 0}, fleetDoor{13150, 0}, fleetDoor{18650, 0})
	r.want(0, Unmonitored)
	r.wantFaults()
}

func TestFleetFarewellAsksTheDoorAtOnce(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.session(2000, 0, wire.StateDown, wire.ReasonShutdown)
	r.wantDoors(fleetDoor{2000, 0})
	r.door(2003, 0, 2000, DoorRefused)
	r.wantFaults("0 down")
	r.want(0, Faulted)

	// The farewell is a sign of the kernel: a timeout of silence from there.
	r = newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.session(2000, 0, wire.StateDown, wire.ReasonStop)
	r.door(2003, 0, 2000, DoorAnswers)
	r.run(3000)
	r.wantDoors(fleetDoor{2000, 0}, fleetDoor{2300, 0})
}

func TestFleetUnmonitored(t *testing.T) {
	t.Parallel()
	// living keeps the kernel of the host alive each interval up to ms.
	living := func(r *fleetRig, ms int) {
		for at := r.now - r.now%100 + 100; at <= ms; at += 100 {
			r.kernel(at, 0)
		}
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 7200)
		r.wantDoors(fleetDoor{7150, 0})
		r.door(7201, 0, 7150, DoorRefused)
		r.wantFaults("0 down")
	})
	t.Run("one silent door of a living host is forgiven", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 9100)
		r.door(9150, 0, 7150, DoorNoAnswer)
		living(r, 12200)
		r.wantFaults()
		r.wantDoors(fleetDoor{7150, 0}, fleetDoor{12150, 0})
		r.door(12210, 0, 12150, DoorAnswers)
		living(r, 19200) // the door of 17150 is silent again: one miss, not two
		r.want(0, Unmonitored)
		r.wantFaults()
	})
	t.Run("two silent doors of a living host are not", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 14100)
		r.wantFaults()
		living(r, 14200) // no result ever came: 12150 + 2 s
		r.wantFaults("0 timeout")
		r.want(0, Faulted)
	})
	t.Run("one miss counts once", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 9200) // the fleet itself gave the question of 7150 up at 9150
		r.door(9210, 0, 7150, DoorNoAnswer)
		r.wantFaults()
		r.want(0, Unmonitored)
	})
	t.Run("a silent kernel has the door asked at once", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 3000)
		r.run(3299)
		r.wantDoors()
		r.run(3300)
		r.wantDoors(fleetDoor{3300, 0})
		r.run(5299)
		r.wantFaults()
		r.run(5300)
		r.want(0, Faulted)
		if len(r.faults) != 1 || r.faults[0].Silence != 2300*time.Millisecond {
			t.Errorf("faults %v, want one after 2300 ms of silence", r.faults)
		}
		r.wantFaults("0 timeout")
	})
	t.Run("only the first question of a silent kernel is exempt", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		// The path to the agent's port is cut, the door answers each time.
		for r.now < 20000 {
			r.run(r.now + 10)
			if n := len(r.doors); n > 0 && r.doors[n-1].At > r.now-10 {
				r.door(r.now, 0, r.doors[n-1].At, DoorAnswers)
			}
		}
		r.wantFaults()
		r.wantDoors(fleetDoor{2450, 0}, fleetDoor{7450, 0}, fleetDoor{12450, 0}, fleetDoor{17450, 0})
	})
	t.Run("a kernel that was back is new when it falls silent again", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.run(2450)
		r.door(2451, 0, 2450, DoorAnswers)
		r.kernel(2600, 0)
		r.run(3000)
		r.wantDoors(fleetDoor{2450, 0}, fleetDoor{2900, 0})
	})
	t.Run("a frame is a sign of the kernel too", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.do(2440, func(now mono.Instant, out *Actions) { r.f.Heard(now, 0, 0, now, 0, 0, out) })
		r.run(2739)
		r.wantDoors()
		r.run(2740)
		r.wantDoors(fleetDoor{2740, 0})
	})
	t.Run("a tick a little late is no pause", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.now = 2450 + 75
		r.collect(r.f.Tick)
		r.wantDoors(fleetDoor{2525, 0})
		r = unmonitoredRig(t, fleetConfig(1))
		r.now = 2450 + 76
		r.collect(r.f.Tick)
		r.wantDoors()
		r.run(2450 + 76 + 300)
		r.wantDoors(fleetDoor{2826, 0})
	})
	t.Run("redials at a long interval keep a short timeout alive", func(t *testing.T) {
		t.Parallel()
		cfg := fleetConfig(1)
		cfg.Interval, cfg.Timeout = 400*time.Millisecond, 300*time.Millisecond
		r := unmonitoredRig(t, cfg)
		for ms := 2500; ms <= 7000; ms += 400 {
			r.kernel(ms, 0)
		}
		r.wantDoors()
	})
	t.Run("an own pause accuses nobody", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		living(r, 7200)
		r.door(7210, 0, 7150, DoorNoAnswer) // one more would do
		r.doors = nil
		living(r, 12200) // the door of 12150 is open
		r.wantDoors(fleetDoor{12150, 0})
		r.now = 60000 // nobody called
		r.collect(r.f.Tick)
		r.door(60000, 0, 12150, DoorNoAnswer)
		r.wantFaults()
		r.want(0, Unmonitored)
		r.wantDoors(fleetDoor{60000, 0})
	})
	t.Run("back when armed and the state is known", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.session(3000, 0, wire.StateUp, wire.ReasonArmed)
		r.want(0, Unmonitored) // the state it had is the one of the session before
		r.instance(3005, 0, fleetPrimary(1))
		r.want(0, Monitored)
		r.run(60000)
		r.wantFaults()
		r.wantDoors(fleetDoor{2450, 0})
		want := []Eager{{0, true}, {0, false}}
		if d := cmp.Diff(want, r.eager); d != "" {
			t.Errorf("eager (-want +got):\n%s", d)
		}
	})
	t.Run("back in the other order", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.instance(3000, 0, fleetPrimary(1))
		r.session(3000, 0, wire.StateUp, wire.ReasonArmed)
		r.want(0, Monitored)
	})
	t.Run("back with the instance down", func(t *testing.T) {
		t.Parallel()
		r := unmonitoredRig(t, fleetConfig(1))
		r.arm(2400, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Status = wire.StatusDown }))
		r.wantFaults("0 down")
		r.want(0, Faulted)
	})
}

func TestFleetRestart(t *testing.T) {
	t.Parallel()
	reborn := fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.StartUS = 2 })

	r := newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.instance(2000, 0, reborn)
	r.wantFaults("0 restart")
	r.want(0, Monitored)
	r.instance(2100, 0, reborn)
	r.wantFaults()

	// Seen as down first: one loss, one fault.
	r.instance(3000, 0, fleetWith(reborn, func(s *wire.Instance) { s.Status = wire.StatusDown }))
	r.wantFaults("0 down")
	r.instance(4000, 0, fleetPrimary(1))
	r.wantFaults()
	r.want(0, Monitored)

	// Not known is not another life, and what was known is not forgotten.
	r.instance(5000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.StartUS = 0 }))
	r.wantFaults()
	r.instance(6000, 0, reborn)
	r.wantFaults("0 restart")

	if n := r.logged("instance restarted"); n != 2 {
		t.Errorf("%d restarts in the log, want those of an instance in use: %v", n, r.log)
	}

	// Restarted while the agent was away: those bound since then live on.
	r = unmonitoredRig(t, fleetConfig(1))
	r.arm(2400, 0, reborn)
	if len(r.faults) != 1 || r.faults[0].Before != fleetAt(2000) {
		t.Errorf("faults %+v, want one for those bound before 2000 ms", r.faults)
	}
	r.wantFaults("0 restart before")
	r.instance(9000, 0, fleetPrimary(1)) // and once more, before its eyes
	r.wantFaults("0 restart")

	// The agent was back in time, but with a new postmaster: all sessions.
	r = lateRig(t, fleetConfig(1))
	r.session(2200, 0, wire.StateUp, wire.ReasonArmed)
	r.instance(2200, 0, reborn)
	r.wantFaults("0 restart")
}

func TestFleetRoleChange(t *testing.T) {
	t.Parallel()
	standby := fleetStandby()
	readOnlyPrimary := fleetWith(fleetPrimary(2), func(s *wire.Instance) { s.ReadOnly = true })
	tests := []struct {
		name     string
		off      bool
		from, to wire.Instance
		want     []string
	}{
		{"demoted", false, fleetPrimary(1), standby, []string{"0 role change primary read-write"}},
		{"promoted", false, standby, fleetPrimary(2), []string{"0 role change standby read-only"}},
		{"promoted, read-only by default", false, standby, readOnlyPrimary, []string{"0 role change standby"}},
		{"read-only default set", false, fleetPrimary(2), readOnlyPrimary, nil},
		{"role not known for a moment", false, fleetPrimary(1), fleetWith(standby, func(s *wire.Instance) { s.Attribute = wire.AttributeUnknown }), nil},
		{"switched off", true, fleetPrimary(1), standby, nil},
		{"restarted in another role", false, fleetPrimary(1), fleetWith(standby, func(s *wire.Instance) { s.StartUS = 2 }), []string{"0 restart"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := fleetConfig(1)
			cfg.CloseOnRoleChange = !tt.off
			r := newFleetRig(t, cfg)
			r.arm(1000, 0, tt.from)
			r.instance(2000, 0, tt.to)
			r.wantFaults(tt.want...)
			r.want(0, Monitored)
			r.instance(3000, 0, tt.to)
			r.wantFaults()
			// The rest of the applications is still owed a fault.
			r.session(4000, 0, wire.StateDown, wire.ReasonPeerDown)
			r.wantFaults("0 peer gave up")
		})
	}

	// Restarted in another role while the agent was away.
	r := unmonitoredRig(t, fleetConfig(1))
	r.arm(2400, 0, fleetWith(standby, func(s *wire.Instance) { s.StartUS = 2 }))
	r.wantFaults("0 restart before", "0 role change primary read-write")
}

func TestFleetUnresponsiveEndsNothing(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, fleetPrimary(1))
	r.instance(2000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Status = wire.StatusUnresponsive }))
	r.wantFaults()
	r.want(0, Monitored)
}

func TestFleetIgnorantAgentIsNone(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(1))
	r.arm(1000, 0, wire.Instance{})
	r.want(0, Unknown)
	r.instance(1100, 0, fleetPrimary(1))
	r.want(0, Monitored)
	r.instance(2000, 0, wire.Instance{Paused: true})
	r.want(0, Unmonitored)
	r.wantDoors(fleetDoor{2000, 0})
	in := r.view().Instances[0].Instance
	if in.Attribute != wire.AttributePrimary || !in.Paused {
		t.Errorf("state %+v, want the role kept and the pause taken over", in)
	}
	// It cannot make conmgr knock more often by changing its mind.
	r.instance(2010, 0, fleetPrimary(1))
	r.instance(2020, 0, wire.Instance{})
	r.wantDoors()
	r.session(2100, 0, wire.StateLate, wire.ReasonLate)
	r.session(2120, 0, wire.StateUp, wire.ReasonHeard)
	r.want(0, Unmonitored)
	r.instance(2200, 0, fleetPrimary(1))
	r.want(0, Monitored)
	r.wantFaults()

	// An instance once faulted is not back because its agent knows nothing.
	r.session(3000, 0, wire.StateDown, wire.ReasonPeerDown)
	r.wantFaults("0 peer gave up")
	r.arm(4000, 0, wire.Instance{})
	r.want(0, Faulted)
}

func TestFleetSystemIdentifier(t *testing.T) {
	t.Parallel()
	stray := fleetWith(fleetStandby(), func(s *wire.Instance) { s.SystemID = 666 })

	t.Run("learned from the first primary, not from a standby", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(3))
		r.arm(1000, 0, stray)
		r.arm(1001, 1, fleetStandby())
		r.want(0, Monitored)
		if r.learned != nil {
			t.Fatalf("learned %v from standbys", r.learned)
		}
		r.arm(1002, 2, fleetPrimary(1))
		if !slices.Equal(r.learned, []uint64{fleetSystem}) {
			t.Errorf("learned %v, want %d", r.learned, fleetSystem)
		}
		r.want(0, Foreign)
		r.want(1, Monitored)
		r.wantFaults("0 wrong instance") // it was in use until now
		if r.logged("wrong instance") != 1 {
			t.Errorf("log %v, want one error", r.log)
		}
		// Its right identifier brings it back; an unknown one does not.
		r.instance(2000, 0, fleetWith(stray, func(s *wire.Instance) { s.SystemID = 0 }))
		r.want(0, Foreign)
		r.instance(2001, 0, fleetStandby())
		r.want(0, Monitored)
		r.instance(2002, 0, fleetWith(fleetStandby(), func(s *wire.Instance) { s.SystemID = 0 }))
		r.want(0, Monitored)
		r.wantFaults()
	})
	t.Run("pinned", func(t *testing.T) {
		t.Parallel()
		cfg := fleetConfig(2)
		cfg.SystemID = fleetSystem
		r := newFleetRig(t, cfg)
		r.arm(1000, 0, fleetWith(fleetPrimary(9), func(s *wire.Instance) { s.SystemID = 666 }))
		r.want(0, Foreign)
		r.arm(1001, 1, fleetPrimary(1))
		r.want(1, Monitored)
		r.wantLosers(false, false)
		if r.learned != nil || r.f.SystemID() != fleetSystem {
			t.Errorf("learned %v, identifier %d, want the pinned one", r.learned, r.f.SystemID())
		}
		r.session(1500, 0, wire.StateDown, wire.ReasonTimeout)
		r.arm(1600, 0, fleetWith(fleetPrimary(9), func(s *wire.Instance) { s.SystemID = 666 }))
		r.want(0, Foreign)
		r.wantFaults()
		if r.logged("wrong instance") != 1 {
			t.Errorf("log %v, want one error", r.log)
		}
	})
	t.Run("kept from an earlier run", func(t *testing.T) {
		t.Parallel()
		f := NewFleet(fleetConfig(1), 555, fleetAt(1))
		var out Actions
		f.Changed(fleetAt(2), 0, heartbeat.Change{To: wire.StateUp}, &out)
		f.Instance(fleetAt(2), 0, fleetPrimary(1), &out)
		if got := f.View(fleetAt(2)).Instances[0]; got.Monitoring != Foreign || got.Why == "" {
			t.Errorf("got %+v, want foreign with a reason", got)
		}
	})
	t.Run("another port", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(1))
		r.arm(1000, 0, fleetPrimary(1))
		other := fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Port = 5433 })
		r.instance(2000, 0, other)
		r.want(0, Foreign)
		r.wantFaults("0 wrong instance")
		r.instance(2100, 0, other)
		r.instance(2200, 0, fleetWith(other, func(s *wire.Instance) { s.Port = 0 }))
		r.want(0, Foreign)
		r.instance(2300, 0, fleetPrimary(1))
		r.want(0, Monitored)
		r.wantFaults()
		if n := r.logged("wrong instance"); n != 2 { // the port, then that it is not known
			t.Errorf("%d errors, want one for each reason: %v", n, r.log)
		}
	})
	t.Run("a primary on the wrong port teaches nothing", func(t *testing.T) {
		t.Parallel()
		r := newFleetRig(t, fleetConfig(1))
		r.arm(1000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Port = 5433 }))
		if r.learned != nil {
			t.Errorf("learned %v", r.learned)
		}
	})
}

func TestFleetView(t *testing.T) {
	t.Parallel()
	r := newFleetRig(t, fleetConfig(1))
	r.arm(1500, 0, fleetPrimary(3))
	addr := netip.MustParseAddr("192.0.2.1")
	var out Actions
	r.f.Addr(0, addr, &out)
	if !out.ViewChanged {
		t.Error("a new address does not ask for a new view")
	}
	out.Reset()
	r.f.Addr(0, addr, &out)
	v := r.view()
	r.f.Heard(fleetAt(2000), 0, time.Millisecond, fleetAt(1990), 3, 4, &out)
	if out.ViewChanged {
		t.Error("figures ask for a view each time")
	}
	r.f.Heard(fleetAt(2500), 0, time.Millisecond, fleetAt(2490), 3, 4, &out)
	if !out.ViewChanged {
		t.Error("figures do not ask for a view after a second")
	}
	if v.Instances[0].RTT != 0 {
		t.Error("a view changed after it was handed out")
	}
	want := InstanceView{
		Number: 0, Host: "db1", Addr: addr, Port: 5432, WatchdogPort: 27545, Monitoring: Monitored,
		Heartbeat: wire.StateUp, Reason: wire.ReasonArmed, Instance: fleetPrimary(3), RTT: time.Millisecond,
		Heard: fleetAt(2490), Lost: 3, Received: 4, Since: fleetAt(1500),
	}
	if d := cmp.Diff(want, r.view().Instances[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("view (-want +got):\n%s", d)
	}
	out.Reset()
	r.f.Instance(fleetAt(2550), 0, fleetPrimary(4), &out)
	if !out.ViewChanged {
		t.Error("another timeline does not ask for a new view")
	}
	out.Reset()
	r.f.Changed(fleetAt(2600), 0, heartbeat.Change{From: wire.StateUp, To: wire.StateLate, LastValid: fleetAt(2490)}, &out)
	if !out.ViewChanged {
		t.Error("a change of the session does not ask for a new view")
	}
}
