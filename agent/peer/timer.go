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
	at    mono.Instant
	index int // in the heap, -1 when not set
	fire  expirer
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
	switch {
	case at == mono.Never:
		t.Stop()
	case t.index < 0:
		t.at = at
		heap.Push(&t.loop.timers, t)
	case t.at != at:
		t.at = at
		t.loop.timers[t.index].at = at
		heap.Fix(&t.loop.timers, t.index)
	}
}

// Pending reports whether the timer is set.
func (t *Timer) Pending() bool { return t.index >= 0 }

// Stop takes the timer back.
func (t *Timer) Stop() {
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

func (h timerHeap) first() *Timer {
	if len(h) == 0 {
		return nil
	}
	return h[0].t
}

func (h *timerHeap) remove(t *Timer) { heap.Remove(h, t.index) }

// Len, Less, Swap, Push and Pop are for container/heap.
func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].t.index, h[j].t.index = i, j
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, timerEntry{t.at, t})
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
