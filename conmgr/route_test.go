// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// routeView makes a view from one word per instance: p primary, s standby; then
// r read-only by default, u unmonitored, h hung (unresponsive), l late,
// f faulted, x foreign, n unknown, z loser, d down.
func routeView(words ...string) *View {
	v := &View{At: fleetAt(5000)}
	for i, word := range words {
		in := InstanceView{
			Number: i, Host: "db", Port: 5432, Monitoring: Monitored, Heartbeat: wire.StateUp,
			Instance: wire.Instance{Status: wire.StatusUp}, RTT: time.Millisecond, Since: fleetAt(3800),
		}
		for _, c := range word {
			switch c {
			case 'p':
				in.Instance.Attribute = wire.AttributePrimary
			case 's':
				in.Instance.Attribute = wire.AttributeStandby
			case 'r':
				in.Instance.ReadOnly = true
			case 'u':
				in.Monitoring, in.Heartbeat = Unmonitored, wire.StateDown
			case 'h':
				in.Instance.Status = wire.StatusUnresponsive
			case 'l':
				in.Heartbeat = wire.StateLate
			case 'f':
				in.Monitoring, in.Heartbeat, in.Why = Faulted, wire.StateDown, "timeout"
			case 'x':
				in.Monitoring = Foreign
			case 'n':
				in.Monitoring = Unknown
			case 'z':
				in.Loser = true
			case 'd':
				in.Instance.Status = wire.StatusDown
			}
		}
		v.Instances = append(v.Instances, in)
	}
	return v
}

func TestRouteTargets(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		view *View
		// in the order of the targets: any, read-write, read-only, primary,
		// standby, prefer-standby
		want [6][]int
	}{
		{"primary and standbys", routeView("s", "p", "s"), [6][]int{
			{0, 1, 2}, {1}, {0, 2}, {1}, {0, 2}, {0, 2, 1}}},
		{"read-only primary", routeView("pr", "s"), [6][]int{
			{0, 1}, nil, {0, 1}, {0}, {1}, {1, 0}}},
		{"read-only standby", routeView("sr"), [6][]int{
			{0}, nil, {0}, nil, {0}, {0}}},
		{"role not known", routeView("", "p"), [6][]int{
			{0, 1}, {1}, nil, {1}, nil, {0, 1}}},
		{"unmonitored after monitored", routeView("su", "s", "pu"), [6][]int{
			{1, 0, 2}, {2}, {1, 0}, {2}, {1, 0}, {1, 0, 2}}},
		{"late before unmonitored", routeView("su", "sl", "s"), [6][]int{
			{2, 1, 0}, nil, {2, 1, 0}, nil, {2, 1, 0}, {2, 1, 0}}},
		{"unresponsive last", routeView("sh", "su", "p"), [6][]int{
			{2, 1, 0}, {2}, {1, 0}, {2}, {1, 0}, {1, 2, 0}}},
		{"unresponsive when alone", routeView("ph"), [6][]int{
			{0}, {0}, nil, {0}, nil, {0}}},
		{"preferred role before monitoring", routeView("p", "su", "sl"), [6][]int{
			{0, 2, 1}, {0}, {2, 1}, {0}, {2, 1}, {2, 1, 0}}},
		{"never offered", routeView("pf", "px", "pn", "pz", "pd", "sf", "sx", "sn", "sd"), [6][]int{}},
		{"nothing configured", routeView(), [6][]int{}},
	}
	for _, tt := range tests {
		for target := range Target(6) {
			t.Run(tt.name+"/"+target.String(), func(t *testing.T) {
				t.Parallel()
				got, err := NewRouter(Policy{LoadBalance: BalanceFirst}).Route(tt.view, target)
				if d := cmp.Diff(tt.want[target], got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
				var none *NoInstanceError
				if errors.As(err, &none) != (tt.want[target] == nil) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
	if got, err := NewRouter(Policy{}).Route(routeView("p"), Target(99)); err == nil {
		t.Errorf("an invalid target goes to %v", got)
	}
}

func TestRouteRTT(t *testing.T) {
	t.Parallel()
	const us = time.Microsecond
	r := NewRouter(Policy{LoadBalance: BalanceRTT})
	v := routeView("s", "s", "p")
	step := func(why string, rtt0, rtt1 time.Duration, want ...int) {
		t.Helper()
		v.Instances[0].RTT, v.Instances[1].RTT = rtt0, rtt1
		got, err := r.Route(v, Standby)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s (-want +got):\n%s%v", why, d, err)
		}
	}
	step("shortest first", 1000*us, 900*us, 1, 0)
	step("shorter, but by less than a quarter", 760*us, 1000*us, 1, 0)
	step("shorter by just a quarter", 750*us, 1000*us, 1, 0)
	step("shorter by more than a quarter", 740*us, 1000*us, 0, 1)
	step("half, but not by 0.2 ms", 300*us, 150*us, 0, 1)
	step("by just 0.2 ms", 400*us, 200*us, 0, 1)
	step("by more", 401*us, 200*us, 1, 0)
	step("round trip not known yet", 0, 9000*us, 1, 0)

	step("1 leads", 1000*us, 1000*us, 1, 0)
	v.Instances[1].Heartbeat = wire.StateLate
	step("the leader is late", 1000*us, 1000*us, 0, 1)
	v.Instances[1].Heartbeat = wire.StateUp
	step("and leads again when heard", 900*us, 1000*us, 1, 0)
	v.Instances[1].Monitoring = Unmonitored
	step("the leader is unmonitored", 1000*us, 1000*us, 0, 1)
	v.Instances[1].Monitoring = Monitored
	step("and has lost the lead", 1000*us, 900*us, 0, 1)

	step("0 leads", 1000*us, 1000*us, 0, 1)
	v.Instances[0].Monitoring, v.Instances[1].Heartbeat = Unmonitored, wire.StateLate
	step("the leader is unmonitored, the other late", 1000*us, 1000*us, 1, 0)
	v.Instances[0].Monitoring, v.Instances[1].Heartbeat = Monitored, wire.StateUp
	step("and has lost the lead, too", 1000*us, 1000*us, 1, 0)
	step("0 leads", 500*us, 1000*us, 0, 1)

	// Each target has a leader of its own.
	step("0 keeps the lead of standby", 1000*us, 900*us, 0, 1)
	if got, _ := r.Route(v, Any); !cmp.Equal(got, []int{1, 0, 2}) {
		t.Errorf("any goes to %v", got)
	}
	v.Instances[0].Monitoring = Faulted
	step("the leader is gone", 0, 900*us, 1)
	v.Instances[0].Monitoring = Monitored
	step("and comes back as anyone", 850*us, 900*us, 1, 0)
}

func TestRouteRandom(t *testing.T) {
	t.Parallel()
	var asked []int
	draws := []int{0, 0}
	r := NewRouter(Policy{LoadBalance: BalanceRandom, Random: func(n int) int {
		asked = append(asked, n)
		return draws[len(asked)-1]
	}})
	got, err := r.Route(routeView("s", "s", "su", "p"), Standby)
	if err != nil || !cmp.Equal(got, []int{1, 0, 2}) {
		t.Errorf("standby goes to %v, %v: want the monitored ones exchanged, the unmonitored one last", got, err)
	}
	if !cmp.Equal(asked, []int{3, 2}) {
		t.Errorf("lots of %v, want a fair shuffle of three", asked)
	}
}

func TestRouteIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	r := NewRouter(Policy{LoadBalance: BalanceRTT})
	v := routeView("p", "s", "s")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				if _, err := r.Route(v, Target(i%len(targetNames))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestNoInstanceError(t *testing.T) {
	t.Parallel()
	v := routeView("pf", "sh", "prz", "n")
	v.Instances[0].Host = "db1"
	v.Instances[1].Host, v.Instances[1].HostAddr = "", "::1"
	v.Instances[2].Why = "stale primary on timeline 1: 0 db1:5432 has had timeline 2"
	v.Split = "nobody wins"
	_, err := NewRouter(Policy{}).Route(v, ReadWrite)
	want := `no instance serves target_session_attrs read-write
0 db1:5432 primary, faulted 1.2 s ago: timeout
1 [::1]:5432 standby, monitored, unresponsive
2 db:5432 primary (read-only by default), monitored: stale primary on timeline 1: 0 db1:5432 has had timeline 2
3 db:5432, unknown
nobody wins`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	_, err = NewRouter(Policy{Now: func() mono.Instant { return fleetAt(3800 + 3_600_000) }}).Route(routeView("pf"), Primary)
	if want := "no instance serves target_session_attrs primary\n0 db:5432 primary, faulted 1h0m0s ago: timeout"; err.Error() != want {
		t.Errorf("got %q, want %q", err.Error(), want)
	}
}

func TestParseBalance(t *testing.T) {
	t.Parallel()
	for _, b := range []Balance{BalanceRTT, BalanceRandom, BalanceFirst} {
		if got, err := ParseBalance(b.String()); err != nil || got != b {
			t.Errorf("%s reads back as %s, %v", b, got, err)
		}
	}
	if _, err := ParseBalance("RTT"); err == nil {
		t.Error("RTT is taken for rtt")
	}
}
