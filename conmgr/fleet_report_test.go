// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

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
	r.f.Heard(fleetAt(1550), 0, Figures{time.Millisecond, fleetAt(1540), 3, 4, 5}, &out)
	if out.ViewChanged {
		t.Error("figures ask for a view each time")
	}
	r.f.Heard(fleetAt(2050), 0, Figures{time.Millisecond, fleetAt(2040), 3, 4, 5}, &out)
	if !out.ViewChanged {
		t.Error("figures never ask for a view")
	}
	if v.Instances[0].RTT != 0 {
		t.Error("a view changed after it was handed out")
	}
	state := fleetPrimary(3)
	state.WAL = 5
	want := InstanceView{
		Number: 0, Host: "db1", Addr: addr, Port: 5432, WatchdogPort: 27545, Monitoring: Monitored,
		Heartbeat: wire.StateUp, Reason: wire.ReasonArmed, Instance: state, RTT: time.Millisecond,
		Heard: fleetAt(2040), Lost: 3, Received: 4, Since: fleetAt(1500),
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
