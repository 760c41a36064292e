// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

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
		r.do(2440, func(now mono.Instant, out *Actions) { r.f.Heard(now, 0, Figures{Heard: now}, out) })
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
