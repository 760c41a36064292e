// SPDX-License-Identifier: Apache-2.0

// Package tally has the running figures that are more than a number. It knows
// nothing of who shows them.
package tally

import (
	"slices"
	"sync"
	"time"
)

// Histogram counts times by how long they were. It is safe for concurrent use.
type Histogram struct {
	bounds []time.Duration

	mu     sync.Mutex // guards the following
	counts []uint64   // one more than bounds: what is longer than all
	sum    time.Duration
}

// New makes a histogram with these upper bounds, which rise.
func New(bounds ...time.Duration) *Histogram {
	return &Histogram{bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

// Observe counts one time. A time equal to a bound is within it.
func (h *Histogram) Observe(d time.Duration) {
	i, _ := slices.BinarySearch(h.bounds, d)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts[i]++
	h.sum += d
}

// Counts are what a histogram has counted by one moment.
type Counts struct {
	Bounds []time.Duration // must not be changed
	Within []uint64        // as many: how many were not longer than each
	Count  uint64          // of all
	Sum    time.Duration   // of all
}

// Counts returns what was counted so far.
func (h *Histogram) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := Counts{Bounds: h.bounds, Within: make([]uint64, len(h.bounds)), Sum: h.sum}
	for i, n := range h.counts {
		c.Count += n
		if i < len(c.Within) {
			c.Within[i] = c.Count
		}
	}
	return c
}
