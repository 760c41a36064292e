// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// TestFleetTransitions enumerates the drawing above Fleet: what each event does
// to an instance in each state.
func TestFleetTransitions(t *testing.T) {
	t.Parallel()
	states := []struct {
		name  string
		armed bool // the session is up
		reach func(r *fleetRig)
		is    Monitoring
	}{
		{"unknown", false, func(*fleetRig) {}, Unknown},
		{"unknown-armed", true, func(r *fleetRig) { r.session(1000, 0, wire.StateUp, wire.ReasonArmed) }, Unknown},
		{"monitored", true, func(r *fleetRig) { r.arm(1000, 0, fleetPrimary(1)) }, Monitored},
		{"unmonitored", false, func(r *fleetRig) {
			r.arm(1000, 0, fleetPrimary(1))
			r.session(1990, 0, wire.StateDown, wire.ReasonStop)
			r.door(1991, 0, 1990, DoorAnswers)
		}, Unmonitored},
		{"unmonitored-armed", true, func(r *fleetRig) {
			r.arm(1000, 0, fleetPrimary(1))
			r.instance(1990, 0, wire.Instance{})
			r.door(1991, 0, 1990, DoorAnswers)
		}, Unmonitored},
		{"faulted", false, func(r *fleetRig) {
			r.arm(1000, 0, fleetPrimary(1))
			r.session(1990, 0, wire.StateDown, wire.ReasonTimeout)
		}, Faulted},
		{"faulted-armed", true, func(r *fleetRig) {
			r.arm(1000, 0, fleetPrimary(1))
			r.instance(1990, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Status = wire.StatusDown }))
		}, Faulted},
		{"foreign", false, func(r *fleetRig) {
			r.arm(1000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Port = 1 }))
			r.session(1990, 0, wire.StateDown, wire.ReasonStop)
		}, Foreign},
		{"foreign-armed", true, func(r *fleetRig) {
			r.arm(1000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Port = 1 }))
		}, Foreign},
	}
	status := func(st wire.Status) func(r *fleetRig) {
		return func(r *fleetRig) {
			if r.sess[0] != wire.StateUp {
				r.session(2000, 0, wire.StateUp, wire.ReasonArmed)
			}
			r.instance(2000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Status = st }))
		}
	}
	end := func(why wire.Reason) func(r *fleetRig) {
		return func(r *fleetRig) { r.session(2000, 0, wire.StateDown, why) }
	}
	door := func(o DoorOutcome) func(r *fleetRig) {
		return func(r *fleetRig) {
			if r.view().Instances[0].Monitoring == Unmonitored {
				for len(r.doors) < 2 { // its first was asked at 1990
					r.run(r.now + 1)
				}
			}
			asked := 0
			if n := len(r.doors); n > 0 {
				asked = r.doors[n-1].At
			}
			r.door(r.now, 0, asked, o)
		}
	}
	events := []struct {
		name  string
		armed bool // only possible while the session is armed
		do    func(r *fleetRig)
		// want: the state afterwards, by state before; ! marks a fault.
		// In the order of states; "-" stands for no change, no fault.
		want [9]string
	}{
		{"session up", false, func(r *fleetRig) { r.session(2000, 0, wire.StateUp, wire.ReasonArmed) },
			[9]string{"-", "-", "-", "-", "-", "-", "-", "-", "-"}},
		{"state up", false, status(wire.StatusUp), [9]string{
			"monitored", "monitored", "-", "monitored", "monitored", "monitored", "monitored", "monitored", "monitored"}},
		{"state unresponsive", false, status(wire.StatusUnresponsive), [9]string{
			"monitored", "monitored", "-", "monitored", "monitored", "-", "-", "monitored", "monitored"}},
		{"state down", false, status(wire.StatusDown), [9]string{
			"faulted", "faulted", "faulted!", "faulted!", "faulted!", "-", "-", "faulted", "faulted"}},
		{"state not known", false, status(wire.StatusUnknown), [9]string{
			"-", "-", "unmonitored", "-", "-", "-", "-", "-", "-"}},
		{"wrong port", false, func(r *fleetRig) {
			r.instance(2000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.Port = 1 }))
		}, [9]string{"foreign", "foreign", "foreign!", "foreign!", "foreign!", "foreign", "foreign", "-", "-"}},
		{"wrong system", false, func(r *fleetRig) {
			r.instance(2000, 0, fleetWith(fleetPrimary(1), func(s *wire.Instance) { s.SystemID = 1 }))
		}, [9]string{"foreign", "foreign", "foreign!", "foreign!", "foreign!", "foreign", "foreign", "-", "-"}},
		{"late", true, func(r *fleetRig) { r.session(2000, 0, wire.StateLate, wire.ReasonLate) },
			[9]string{"-", "-", "-", "-", "-", "-", "-", "-", "-"}},
		{"verdict timeout", true, end(wire.ReasonTimeout), [9]string{
			"-", "-", "faulted!", "-", "-", "-", "-", "-", "-"}},
		{"verdict peer down", true, end(wire.ReasonPeerDown), [9]string{
			"-", "-", "faulted!", "-", "faulted!", "-", "-", "-", "-"}},
		{"bye", true, end(wire.ReasonStop), [9]string{
			"-", "-", "unmonitored", "-", "-", "-", "-", "-", "-"}},
		{"attempt failed", false, func(r *fleetRig) {
			if r.sess[0] != wire.StateUp {
				r.session(2000, 0, wire.StateInit, wire.ReasonOpened)
				r.session(2000, 0, wire.StateDown, wire.ReasonNoAnswer)
			}
		}, [9]string{"-", "-", "-", "-", "-", "-", "-", "-", "-"}},
		{"kernel lives", false, func(r *fleetRig) { r.kernel(2000, 0) },
			[9]string{"-", "-", "-", "-", "-", "-", "-", "-", "-"}},
		{"door answers", false, door(DoorAnswers), [9]string{"-", "-", "-", "-", "-", "-", "-", "-", "-"}},
		{"door refused", false, door(DoorRefused), [9]string{
			"-", "-", "-", "faulted!", "faulted!", "-", "-", "-", "-"}},
		{"door and kernel silent", false, door(DoorNoAnswer), [9]string{
			"-", "-", "-", "faulted!", "faulted!", "-", "-", "-", "-"}},
		{"an hour of nothing", false, func(r *fleetRig) { r.run(3_600_000) }, [9]string{
			"-", "-", "-", "faulted!", "faulted!", "-", "-", "-", "-"}},
	}
	for i, st := range states {
		for _, ev := range events {
			if ev.armed && !st.armed {
				continue
			}
			t.Run(st.name+"/"+ev.name, func(t *testing.T) {
				t.Parallel()
				cfg := fleetConfig(1)
				cfg.SystemID = fleetSystem
				r := newFleetRig(t, cfg)
				st.reach(r)
				r.want(0, st.is)
				r.run(1995)
				r.faults = nil
				ev.do(r)
				got := r.view().Instances[0].Monitoring.String()
				if len(r.faults) > 0 {
					got += fmt.Sprint("!!!!"[:len(r.faults)])
				}
				want := ev.want[i]
				if want == "-" {
					want = st.is.String()
				}
				if got != want {
					t.Errorf("is %s, want %s", got, want)
				}
			})
		}
	}
}
