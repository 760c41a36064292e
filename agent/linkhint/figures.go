// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/tally"
)

// Figures count the events of links that a daemon has seen.
type Figures struct {
	Events [Rtnetlink + 1][Removed + 1]uint64 // by Source and Kind
	// Latency is Event.Latency by Source; Rtnetlink does not tell its own.
	Latency [Rtnetlink]tally.Counts
}

// figures are filled by one Watcher. They are safe for concurrent use.
type figures struct {
	latency [Rtnetlink]*tally.Histogram

	mu     sync.Mutex // guards the following
	events [Rtnetlink + 1][Removed + 1]uint64
}

func newFigures() *figures {
	f := new(figures)
	for i := range f.latency {
		f.latency[i] = tally.New(
			100*time.Microsecond, 250*time.Microsecond, 500*time.Microsecond, time.Millisecond,
			2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 50*time.Millisecond, time.Second,
		)
	}
	return f
}

func (f *figures) note(e Event) {
	f.mu.Lock()
	f.events[e.Source][e.Kind]++
	f.mu.Unlock()
	if e.Latency >= 0 && int(e.Source) < len(f.latency) {
		f.latency[e.Source].Observe(e.Latency)
	}
}

// Figures returns what was counted so far. May be called from any goroutine.
func (w *Watcher) Figures() (out Figures) {
	w.figures.mu.Lock()
	out.Events = w.figures.events
	w.figures.mu.Unlock()
	for i, h := range w.figures.latency {
		out.Latency[i] = h.Counts()
	}
	return out
}

// Figures are the Watcher's, empty without one.
func (h *Hints) Figures() (out Figures) {
	if h.w != nil {
		out = h.w.Figures()
	}
	return out
}
