// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

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
