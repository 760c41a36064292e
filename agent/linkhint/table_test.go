// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	peerA = netip.MustParseAddr("10.0.0.1")
	peerB = netip.MustParseAddr("fd00::2")
)

// good is a device that is up and has its carrier.
func good(index int) device {
	return device{index: index, name: "eth", up: true, carrier: true}
}

func without(d device, what string) device {
	switch what {
	case "carrier":
		d.carrier = false
	case "up":
		d.up, d.carrier = false, false
	}
	return d
}

func above(parent int, d device) device {
	d.parent = parent
	return d
}

// toldPath is what of a Path a case can say.
type toldPath struct {
	Peer  netip.Addr
	State State
}

func plain(paths []Path) (p []toldPath) {
	for _, path := range paths {
		p = append(p, toldPath{path.Peer, path.State})
	}
	return p
}

func TestChanged(t *testing.T) {
	t.Parallel()
	none, off, lost, up := device{}, without(good(1), "up"), without(good(1), "carrier"), good(1)
	renamed := up
	renamed.name = "wan"
	for _, c := range []struct {
		name     string
		old, now device
		want     Kind
	}{
		{"appears up", none, up, AdminUp},
		{"appears up without carrier", none, lost, AdminUp},
		{"appears down", none, off, 0},
		{"set down", up, off, AdminDown},
		{"set down without carrier", lost, off, AdminDown},
		{"set up", off, up, AdminUp},
		{"set up without carrier", off, lost, AdminUp},
		{"loses its carrier", up, lost, CarrierLost},
		{"gets it back", lost, up, CarrierBack},
		{"renamed", up, renamed, 0},
	} {
		if got := changed(c.old, c.now); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// Each step is a change and what is told of it.
func TestTable(t *testing.T) {
	t.Parallel()
	type step struct {
		do   func(*table) []Path
		want []toldPath
	}
	set := func(d device) func(*table) []Path {
		return func(t *table) []Path { return t.setDevice(d, Event{}) }
	}
	remove := func(index int) func(*table) []Path {
		return func(t *table) []Path { return t.removeDevice(index, Event{}) }
	}
	reach := func(peer netip.Addr, w ways) func(*table) []Path {
		return func(t *table) []Path { _, told := t.setWays(peer, w, Event{}); return told }
	}
	by := func(devices ...int) func(*table) []Path { return reach(peerA, ways{devices: devices}) }
	a := func(s State) []toldPath { return []toldPath{{peerA, s}} }
	lost := func(index int) func(*table) []Path { return set(without(good(index), "carrier")) }
	off := func(index int) func(*table) []Path { return set(without(good(index), "up")) }
	lo := device{index: 9, name: "lo", loopback: true}

	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"carrier goes and comes", []step{
			{by(1), nil}, {lost(1), a(Lost)}, {lost(1), nil}, {set(good(1)), a(Good)},
		}},
		{"set down and up", []step{
			{by(1), nil}, {off(1), a(Off)}, {lost(1), a(Lost)}, {set(good(1)), a(Good)},
		}},
		{"removed and there again", []step{
			{by(1), nil}, {remove(1), a(Off)}, {remove(1), nil}, {set(good(1)), a(Good)},
		}},
		{"a device that is not known", []step{{by(7), a(Off)}, {set(good(7)), a(Good)}}},
		{"no route", []step{{by(), a(Off)}, {by(), nil}, {by(1), a(Good)}}},
		{"another route", []step{
			{by(1), nil}, {lost(1), a(Lost)}, {by(2), a(Good)}, {set(good(1)), nil}, {by(1), nil},
		}},
		{"a route to where the carrier is lost", []step{
			{by(1), nil}, {lost(2), nil}, {by(2), a(Lost)}, {by(), a(Off)},
		}},
		{"ECMP", []step{
			{by(1, 2), nil}, {lost(1), nil}, {lost(2), a(Lost)}, {set(good(1)), a(Good)},
		}},
		{"ECMP, one lost and one off", []step{
			{by(1, 2), nil}, {off(1), nil}, {lost(2), a(Lost)}, {off(2), a(Off)}, {lost(1), a(Lost)},
		}},
		{"on this host", []step{
			{reach(peerA, ways{here: true}), nil}, {lost(1), nil}, {remove(1), nil},
		}},
		{"loopback is never lost", []step{{by(9), a(Off)}, {set(lo), a(Good)}}},
		{"vlan: the device below decides", []step{
			{set(above(1, good(3))), nil}, {by(3), nil}, {lost(1), a(Lost)}, {set(good(1)), a(Good)},
		}},
		{"macvlan: set down below, carrier lost above", []step{
			{set(above(1, good(3))), nil}, {by(3), nil}, {off(1), a(Off)},
			{set(above(1, without(good(3), "carrier"))), nil},
		}},
		{"vlan set down above a good device", []step{
			{set(above(1, good(3))), nil}, {by(3), nil}, {set(above(1, without(good(3), "up"))), a(Off)},
		}},
		{"vlan above a macvlan", []step{
			{set(above(1, good(3))), nil}, {set(above(3, good(4))), nil}, {by(4), nil},
			{lost(1), a(Lost)}, {remove(1), a(Off)},
		}},
		{"a circle of parents ends", []step{
			{set(above(4, good(3))), nil}, {set(above(3, good(4))), nil}, {by(4), nil},
			{set(above(4, without(good(3), "carrier"))), a(Lost)},
		}},
		{"two peers by one device", []step{
			{by(1), nil}, {reach(peerB, ways{devices: []int{1}}), nil},
			{lost(1), []toldPath{{peerA, Lost}, {peerB, Lost}}},
		}},
		{"a peer that nobody watches", []step{
			{reach(netip.MustParseAddr("10.9.9.9"), ways{}), nil}, {lost(1), nil},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tab := newTable()
			tab.setDevice(good(1), Event{})
			tab.setDevice(good(2), Event{})
			tab.watch(peerA)
			tab.watch(peerB)
			for i, s := range c.steps {
				if diff := cmp.Diff(s.want, plain(s.do(tab)), addrs); diff != "" {
					t.Errorf("step %d (-want +got):\n%s", i+1, diff)
				}
			}
		})
	}
}

func TestWatchIsCounted(t *testing.T) {
	t.Parallel()
	tab := newTable()
	if unknown, told := tab.watch(peerA); !unknown || told != nil {
		t.Errorf("first: unknown %v, told %v", unknown, told)
	}
	cause := Event{Kind: CarrierLost, Name: "eth"}
	tab.setWays(peerA, ways{devices: []int{1}}, cause)
	want := []Path{{Peer: peerA, State: Off, Cause: cause}}
	unknown, told := tab.watch(peerA)
	if diff := cmp.Diff(want, told, addrs); diff != "" || unknown {
		t.Errorf("second: unknown %v, (-want +got):\n%s", unknown, diff)
	}
	tab.unwatch(peerA)
	if told := tab.setDevice(good(1), Event{}); len(told) != 1 {
		t.Errorf("one watcher left: %v", told)
	}
	tab.unwatch(peerA)
	tab.unwatch(peerA)
	if told := tab.removeDevice(1, Event{}); told != nil || len(tab.peers()) != 0 {
		t.Errorf("no watcher left: %v, %v", told, tab.peers())
	}
	// It begins anew.
	if unknown, told := tab.watch(peerA); !unknown || told != nil {
		t.Errorf("again: unknown %v, told %v", unknown, told)
	}
}

func TestOnPaths(t *testing.T) {
	t.Parallel()
	tab := newTable()
	for _, d := range []device{good(1), good(2), above(1, good(3)), good(4), {index: 5, loopback: true}} {
		tab.setDevice(d, Event{})
	}
	tab.watch(peerA)
	tab.watch(peerB)
	tab.setWays(peerA, ways{devices: []int{3, 5, 8}}, Event{})
	tab.setWays(peerB, ways{devices: []int{2, 1}}, Event{})
	if diff := cmp.Diff([]int{1, 2, 3}, tab.onPaths()); diff != "" {
		t.Errorf("both (-want +got):\n%s", diff)
	}
	tab.unwatch(peerA)
	if diff := cmp.Diff([]int{1, 2}, tab.onPaths()); diff != "" {
		t.Errorf("one (-want +got):\n%s", diff)
	}
	tab.setWays(peerB, ways{here: true}, Event{})
	if got := tab.onPaths(); len(got) != 0 {
		t.Errorf("none: %v", got)
	}
}

func TestZoneOf(t *testing.T) {
	t.Parallel()
	tab := newTable()
	tab.setDevice(device{index: 3, name: "eth0"}, Event{})
	tab.setDevice(device{index: 4, name: "3"}, Event{}) // allowed, and a name goes first
	for _, c := range []struct {
		peer string
		want int
		ok   bool
	}{
		{"10.0.0.1", 0, true}, {"fe80::1", 0, true}, {"fe80::1%eth0", 3, true}, {"fe80::1%4", 4, true},
		{"fe80::1%3", 4, true}, {"fe80::1%eth9", 0, false}, {"fe80::1%99", 99, false},
	} {
		got, ok := tab.zoneOf(netip.MustParseAddr(c.peer))
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: got %d, %v; want %d, %v", c.peer, got, ok, c.want, c.ok)
		}
	}
}

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
