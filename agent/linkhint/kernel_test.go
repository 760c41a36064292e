// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The kernel tells it: each of these leads to its event and its path, and back.
func TestLinkEvents(t *testing.T) {
	for _, without := range [][]Source{nil, {Counter}} {
		t.Run(fmt.Sprint("without ", without), func(t *testing.T) {
			n := mustNode(t)
			p := n.mustTap(t, "t0")
			n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
			n.watch(t, Config{Without: without})
			if got, want := n.Source(), [2]Source{Counter, Rtnetlink}[len(without)]; got != want {
				t.Errorf("source %v, want %v; missing %+v", got, want, n.Missing())
			}
			peer := n.mustWatch(t, "10.1.0.5")[0]

			p.carrier(t, false)
			e := n.mustEvent(t, "t0", CarrierLost, 0)
			if cause := n.mustPath(t, peer, Lost).Cause; cause != e.Event {
				t.Errorf("cause %+v, event %+v", cause, e)
			}
			p.carrier(t, true)
			n.mustEvent(t, "t0", CarrierBack, 0)
			n.mustPath(t, peer, Good)

			n.ip(t, "link set t0 down")
			n.mustEvent(t, "t0", AdminDown, 0)
			n.mustPath(t, peer, Off)
			n.ip(t, "link set t0 up")
			n.mustEvent(t, "t0", AdminUp, 0)
			n.mustPath(t, peer, Good)

			p.remove()
			n.mustEvent(t, "t0", Removed, 0)
			n.mustPath(t, peer, Off)
			n.mustTap(t, "t0")
			n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
			n.mustPath(t, peer, Good)

			// Nothing was told twice.
			for kind, want := range map[Kind]int{CarrierLost: 1, CarrierBack: 1, AdminDown: 1, Removed: 1} {
				if got := n.countOf("t0", kind); got != want {
					t.Errorf("%v: %d times, want %d", kind, got, want)
				}
			}
		})
	}
}

// The path follows the routing table.
func TestRouteEvents(t *testing.T) {
	n := mustNode(t)
	p0, p1 := n.mustTap(t, "t0"), n.mustTap(t, "t1")
	n.ip(t, "link set t0 up", "link set t1 up", "address add 10.1.0.1/24 dev t0", "address add 10.2.0.1/24 dev t1",
		"address add fd01::1/64 dev t0 nodad", "address add fd02::1/64 dev t1 nodad")
	n.watch(t, Config{})
	addrs := n.mustWatch(t, "10.50.0.1", "fd50::1", "10.77.0.1")
	far4, far6, own := addrs[0], addrs[1], addrs[2]
	for _, peer := range addrs {
		n.mustPath(t, peer, Off)
	}
	n.ip(t, "route add 10.50.0.0/16 via 10.1.0.9", "route add fd50::/64 via fd01::9", "address add 10.77.0.1/32 dev lo")
	for _, peer := range addrs {
		if cause := n.mustPath(t, peer, Good).Cause; cause.Kind != 0 {
			t.Errorf("%v: cause %+v", peer, cause)
		}
	}

	p0.carrier(t, false)
	n.mustPath(t, far4, Lost)
	n.mustPath(t, far6, Lost)
	// Away from the lost device: good. Back to it: lost again.
	n.ip(t, "route replace 10.50.0.0/16 via 10.2.0.9", "route replace fd50::/64 via fd02::9")
	n.mustPath(t, far4, Good)
	n.mustPath(t, far6, Good)
	n.ip(t, "route replace 10.50.0.0/16 via 10.1.0.9")
	n.mustPath(t, far4, Lost)
	// A rule, and it is gone.
	n.ip(t, "route add default via 10.2.0.9 table 90", "rule add to 10.50.0.0/16 table 90")
	n.mustPath(t, far4, Good)
	n.ip(t, "rule delete to 10.50.0.0/16 table 90")
	n.mustPath(t, far4, Lost)

	// Both next hops must be lost.
	n.ip(t, "route replace 10.50.0.0/16 nexthop via 10.1.0.9 nexthop via 10.2.0.9")
	n.mustPath(t, far4, Good)
	p1.carrier(t, false)
	n.mustEvent(t, "t1", CarrierLost, 0)
	n.mustPath(t, far4, Lost)
	p1.carrier(t, true)
	n.mustPath(t, far4, Good)

	n.ip(t, "address delete 10.77.0.1/32 dev lo")
	n.mustPath(t, own, Off)
	n.ip(t, "route delete 10.50.0.0/16")
	n.mustPath(t, far4, Off)
}

// A device that leads to a peer with others around it.
func TestStackedDevices(t *testing.T) {
	n := mustNode(t)
	p0, p1 := n.mustTap(t, "t0"), n.mustTap(t, "t1")
	if !n.try("link add link t0 name vl type vlan id 7") && !n.try("link add link t0 name vl type macvlan") {
		agenttest.Skip(t, "a kernel with vlan or macvlan")
	}
	n.ip(t, "link add br0 type bridge stp_state 0 forward_delay 0", "link set t1 master br0",
		"link set t0 up", "link set t1 up", "link set vl up", "link set br0 up",
		"address add 10.1.0.1/24 dev vl", "address add 10.2.0.1/24 dev br0",
		"address add fe80::7/64 dev vl nodad")
	n.watch(t, Config{})
	addrs := n.mustWatch(t, "10.1.0.5", "10.2.0.5", "127.0.0.1", "10.1.0.1", "fe80::5%vl")
	upper, bridge, zoned := addrs[0], addrs[1], addrs[4]

	p0.carrier(t, false)
	n.mustPath(t, upper, Lost)
	n.mustPath(t, zoned, Lost)
	if p := n.last(upper); p.Cause.Name != "t0" {
		t.Errorf("the device below was not the first to tell: %+v", p)
	}
	p0.carrier(t, true)
	n.mustPath(t, upper, Good)
	n.mustPath(t, zoned, Good)
	n.ip(t, "link set t0 down")
	n.mustPath(t, upper, Off)

	// The bridge itself loses its carrier with its last port.
	p1.carrier(t, false)
	n.mustEvent(t, "t1", CarrierLost, 0)
	n.mustPath(t, bridge, Lost)
	n.mustEvent(t, "br0", CarrierLost, 0)
	p1.carrier(t, true)
	n.mustPath(t, bridge, Good)
	for _, here := range addrs[2:4] {
		if told := n.told(here); told != 0 {
			t.Errorf("%v: told %d times of a peer on this host", here, told)
		}
	}
}

// A second loss within a second of another device's: the kernel holds its message
// back, the counter does not.
func TestCounterBeatsTheThrottle(t *testing.T) {
	n := mustNode(t)
	n.mustTap(t, "t0")
	first := n.mustTap(t, "t1")
	second := n.mustTap(t, "t2")
	n.ip(t, "link set t1 up", "link set t2 up", "address add 10.1.0.1/24 dev t1", "address add 10.2.0.1/24 dev t2")
	// measure returns how long the second loss takes to be told, and by whom.
	measure := func(without ...Source) (time.Duration, Source) {
		stop := n.start(t, Config{Without: without})
		defer stop()
		n.mustWatch(t, "10.1.0.5", "10.2.0.5")
		since := n.count()
		first.carrier(t, false)
		n.mustEvent(t, "t1", CarrierLost, since)
		at := second.carrier(t, false)
		e := n.mustEvent(t, "t2", CarrierLost, since)
		first.carrier(t, true)
		second.carrier(t, true)
		n.mustEvent(t, "t1", CarrierBack, since)
		n.mustEvent(t, "t2", CarrierBack, since)
		if e.Source == Counter && e.Latency < 0 || e.Source == Rtnetlink && e.Latency >= 0 {
			t.Errorf("latency of %+v", e)
		}
		return time.Duration(e.delivered - at), e.Source
	}
	plain, source := measure(Counter)
	t.Logf("rtnetlink alone: %v", plain)
	if source != Rtnetlink {
		t.Errorf("told by %v", source)
	}
	// Elsewhere on the machine somebody may end the throttle's second just then.
	const rounds = 5
	for range rounds {
		took, source := measure()
		t.Logf("with the counter: %v, told by %v", took, source)
		if source == Counter {
			return
		}
	}
	t.Errorf("the counter was never first in %d rounds", rounds)
}

// Who wants to see all events has the counter look at devices that nobody is
// reached by.
func TestAllDevicesAreLookedAt(t *testing.T) {
	n := mustNode(t)
	tap := n.mustTap(t, "t1")
	n.ip(t, "link set t1 up")
	n.watch(t, Config{All: true})
	const rounds = 20
	for range rounds {
		since := n.count()
		tap.carrier(t, false)
		e := n.mustEvent(t, "t1", CarrierLost, since)
		tap.carrier(t, true)
		n.mustEvent(t, "t1", CarrierBack, since)
		if e.Source == Counter {
			return
		}
	}
	t.Errorf("the counter was never first in %d rounds", rounds)
}
