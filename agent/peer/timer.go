// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"container/heap"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Timer calls a function on the loop goroutine at an instant. It is used on the
// loop goroutine only.
type Timer struct {
	loop  *Loop
	fire  expirer
	index int32 // in the heap, -1 when not set
}

// expirer is what a timer calls.
type expirer interface{ expired() }

type callback func()

func (f callback) expired() { f() }

// NewTimer returns a timer that is not set.
func (l *Loop) NewTimer(fire func()) *Timer {
	return &Timer{loop: l, index: -1, fire: callback(fire)}
}

// Set sets the timer to fire at the given instant, once. Never stops it.
func (t *Timer) Set(at mono.Instant) {
	t.fired()
	switch {
	case at == mono.Never:
		t.Stop()
	case t.index < 0:
		heap.Push(&t.loop.timers, t)
		t.move(at)
	case t.loop.timers[t.index].at != at:
		t.move(at)
	}
}

// fired ends that a timer whose function runs keeps its place.
func (t *Timer) fired() {
	if t.loop.firing == t {
		t.loop.firing = nil
	}
}

// move gives a timer that is in the heap another instant.
func (t *Timer) move(at mono.Instant) {
	t.loop.timers[t.index].at = at
	heap.Fix(&t.loop.timers, int(t.index))
}

// Pending reports whether the timer is set.
func (t *Timer) Pending() bool { return t.index >= 0 && t.loop.firing != t }

// Stop takes the timer back.
func (t *Timer) Stop() {
	t.fired()
	if t.index >= 0 {
		t.loop.timers.remove(t)
	}
}

// timerHeap is the one timer structure of the loop, earliest first. The instants
// stand in it, so that ordering it does not touch the timers.
type timerHeap []timerEntry

type timerEntry struct {
	at mono.Instant
	t  *Timer
}

// first is the earliest; Never without one.
func (h timerHeap) first() timerEntry {
	if len(h) == 0 {
		return timerEntry{at: mono.Never}
	}
	return h[0]
}

func (h *timerHeap) remove(t *Timer) { heap.Remove(h, int(t.index)) }

// Len, Less, Swap, Push and Pop are for container/heap.
func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].t.index, h[j].t.index = int32(i), int32(j)
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = int32(len(*h))
	*h = append(*h, timerEntry{mono.Never, t})
}

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1].t
	old[len(old)-1] = timerEntry{}
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
