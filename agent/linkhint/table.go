// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"net/netip"
	"slices"
)

// device is what counts of a network device of this namespace.
type device struct {
	index    int
	name     string
	up       bool // IFF_UP
	carrier  bool // IFF_LOWER_UP; the kernel shows none of a device that is not up
	running  bool // IFF_RUNNING: only tells that routes may have changed
	loopback bool
	parent   int    // the device below it that it needs; 0: none in this namespace
	address  string // its hardware address, empty for one without
}

// changed says what became of a device. A new device counts as one that was set
// down; the zero Kind is no change that anybody is told of.
func changed(old, now device) Kind {
	switch {
	case old.up && !now.up:
		return AdminDown
	case !old.up && now.up:
		return AdminUp
	case old.carrier && !now.carrier:
		return CarrierLost
	case !old.carrier && now.carrier:
		return CarrierBack
	}
	return 0
}

// ways are the alternatives that a peer is reached by: the devices of the next
// hops, each with what is below it. Without any there is no route.
type ways struct {
	here    bool // the peer is on this host
	devices []int
}

func (w ways) equal(o ways) bool { return w.here == o.here && slices.Equal(w.devices, o.devices) }

// path is a watched peer.
type path struct {
	watchers int
	known    bool // the ways were looked up
	ways     ways
	state    State // told last
	cause    Event
}

// table holds the devices and the ways to the watched peers, and answers each
// change with the paths that it changes. It is pure and belongs to one goroutine.
type table struct {
	devices map[int]device
	paths   map[netip.Addr]*path
}

func newTable() *table {
	return &table{devices: make(map[int]device), paths: make(map[netip.Addr]*path)}
}

// watch adds one watcher of a peer. A new peer wants its ways set; of another one
// that is not good the change is returned once more.
func (t *table) watch(peer netip.Addr) (unknown bool, told []Path) {
	p, ok := t.paths[peer]
	if !ok {
		p = new(path)
		t.paths[peer] = p
	}
	p.watchers++
	if p.state != Good {
		told = []Path{{Peer: peer, State: p.state, Cause: p.cause}}
	}
	return !ok, told
}

// unwatch takes one watcher away. One too many is ignored.
func (t *table) unwatch(peer netip.Addr) {
	p, ok := t.paths[peer]
	if !ok {
		return
	}
	if p.watchers--; p.watchers == 0 {
		delete(t.paths, peer)
	}
}

// peers returns who is watched, in order.
func (t *table) peers() []netip.Addr {
	peers := make([]netip.Addr, 0, len(t.paths))
	for peer := range t.paths {
		peers = append(peers, peer)
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return peers
}

// setDevice adds a device or changes it.
func (t *table) setDevice(d device, cause Event) []Path {
	if t.devices[d.index] == d {
		return nil
	}
	t.devices[d.index] = d
	return t.judgeAll(cause)
}

// removeDevice takes a device away.
func (t *table) removeDevice(index int, cause Event) []Path {
	delete(t.devices, index)
	return t.judgeAll(cause)
}

// setWays says how a peer is reached; one that nobody watches any more is left
// out.
func (t *table) setWays(peer netip.Addr, w ways, cause Event) (news bool, told []Path) {
	p, ok := t.paths[peer]
	if !ok || p.known && p.ways.equal(w) {
		return false, nil
	}
	p.known, p.ways = true, w
	return true, t.judge(nil, peer, p, cause)
}

// judgeAll returns all paths whose state is another one now, in order.
func (t *table) judgeAll(cause Event) (told []Path) {
	for peer, p := range t.paths {
		told = t.judge(told, peer, p, cause)
	}
	slices.SortFunc(told, func(a, b Path) int { return a.Peer.Compare(b.Peer) })
	return told
}

func (t *table) judge(told []Path, peer netip.Addr, p *path, cause Event) []Path {
	state := t.state(p)
	if state == p.state {
		return told
	}
	p.state, p.cause = state, cause
	return append(told, Path{Peer: peer, State: state, Cause: cause})
}

// state is good when one way is, and lost rather than off when ways differ.
func (t *table) state(p *path) State {
	if !p.known || p.ways.here {
		return Good
	}
	state := Off
	for _, index := range p.ways.devices {
		switch t.chainState(index) {
		case Good:
			return Good
		case Lost:
			state = Lost
		}
	}
	return state
}

// chainState is that of a device with all below it. The lowest one that is not
// good decides: who sets a device down takes the carrier from those above.
func (t *table) chainState(index int) State {
	state := Good
	for index := range t.chain(index) {
		d, ok := t.devices[index]
		switch {
		case !ok || !d.up && !d.loopback:
			state = Off
		case !d.carrier && !d.loopback:
			state = Lost
		}
	}
	return state
}

// deepest bounds a chain: the kernel nests at most 8 devices (MAX_NEST_DEV).
const deepest = 8

// chain yields a device and those below it, from the top.
func (t *table) chain(index int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for range deepest {
			if index == 0 || !yield(index) {
				return
			}
			index = t.devices[index].parent
		}
	}
}

// onPaths returns the devices on the ways to watched peers, in order: those whose
// carrier somebody waits for.
func (t *table) onPaths() []int {
	found := make(map[int]bool)
	for _, p := range t.paths {
		for _, top := range p.ways.devices {
			for index := range t.chain(top) {
				if d, ok := t.devices[index]; ok && !d.loopback {
					found[index] = true
				}
			}
		}
	}
	return sorted(found)
}

func sorted(set map[int]bool) []int {
	indexes := make([]int, 0, len(set))
	for index := range set {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	return indexes
}

// up returns the devices that are up, in order, but for loopback.
func (t *table) up() []int {
	found := make(map[int]bool)
	for index, d := range t.devices {
		if d.up && !d.loopback {
			found[index] = true
		}
	}
	return sorted(found)
}

// indexOf finds the device with a name; 0: there is none.
func (t *table) indexOf(name string) int {
	for index, d := range t.devices {
		if d.name == name {
			return index
		}
	}
	return 0
}
