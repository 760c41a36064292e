// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"net/netip"
	"slices"
	"testing"
)

// naive computes the state of a path from nothing but the definition.
func naive(devices map[int]device, w ways) State {
	if w.here {
		return Good
	}
	var states []State
	for _, top := range w.devices {
		states = append(states, naiveChain(devices, top))
	}
	switch {
	case slices.Contains(states, Good):
		return Good
	case slices.Contains(states, Lost):
		return Lost
	}
	return Off
}

func naiveChain(devices map[int]device, index int) State {
	d, ok := devices[index]
	if ok && d.parent != 0 {
		if below := naiveChain(devices, d.parent); below != Good {
			return below
		}
	}
	switch {
	case ok && d.loopback:
		return Good
	case !ok || !d.up:
		return Off
	case !d.carrier:
		return Lost
	}
	return Good
}

// script draws numbers from bytes; it is used up when ok is false.
type script struct{ data []byte }

func (s *script) next(n int) (drawn int, ok bool) {
	if len(s.data) == 0 {
		return 0, false
	}
	drawn = int(s.data[0]) % n
	s.data = s.data[1:]
	return drawn, true
}

const scriptDevices = 6

// device draws one; parents have smaller numbers, so that there is no circle.
func (s *script) device() device {
	index, _ := s.next(scriptDevices)
	d := device{index: index + 1}
	bits, _ := s.next(16)
	d.up, d.carrier, d.loopback = bits&1 != 0, bits&2 != 0, bits&12 == 12
	if parent, _ := s.next(2 * scriptDevices); parent <= index {
		d.parent = parent
	}
	return d
}

func (s *script) ways() (w ways) {
	n, _ := s.next(5)
	w.here = n == 4
	for range min(n, 3) {
		index, _ := s.next(scriptDevices + 1)
		w.devices = append(w.devices, index+1)
	}
	return w
}

// FuzzTable plays random changes. What was told last of each peer must always be
// the state that the definition gives, and nothing is told twice.
func FuzzTable(f *testing.F) {
	f.Add([]byte("a device, some ways, and what becomes of them"))
	for seed := range byte(64) {
		data := make([]byte, 400)
		x := uint32(seed) + 1
		for i := range data {
			x = x*1664525 + 1013904223
			data[i] = byte(x >> 24)
		}
		f.Add(data)
	}
	peers := []netip.Addr{peerA, peerB, netip.MustParseAddr("10.0.0.3")}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &script{data}
		tab := newTable()
		devices := make(map[int]device)
		known, last := make(map[netip.Addr]ways), make(map[netip.Addr]State)
		for {
			what, ok := s.next(8)
			if !ok {
				return
			}
			which, _ := s.next(len(peers))
			peer := peers[which]
			var told []Path
			switch {
			case what < 3:
				d := s.device()
				devices[d.index] = d
				told = tab.setDevice(d, Event{})
			case what == 3:
				index := which + 1
				delete(devices, index)
				told = tab.removeDevice(index, Event{})
			case what < 6 && tab.paths[peer] != nil:
				known[peer] = s.ways()
				_, told = tab.setWays(peer, known[peer], Event{})
			case what == 6:
				if tab.paths[peer] == nil {
					tab.watch(peer)
				}
			case what == 7:
				tab.unwatch(peer)
				delete(known, peer)
				delete(last, peer)
			}
			for _, p := range told {
				if last[p.Peer] == p.State {
					t.Fatalf("%v: %v told twice", p.Peer, p.State)
				}
				last[p.Peer] = p.State
			}
			for peer, w := range known {
				if want := naive(devices, w); last[peer] != want {
					t.Fatalf("%v by %+v: told %v, is %v; devices %+v", peer, w, last[peer], want, devices)
				}
			}
		}
	})
}
