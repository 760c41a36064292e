// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"context"
	"log/slog"
	"math"
	"net/netip"
	"sync/atomic"
	"time"
)

// Sessions are those whose peers are watched: agent/peer's Loop. LinkLost and
// LinkBack are called by what Do runs.
type Sessions interface {
	Do(func())
	LinkLost(peers []netip.Addr, grace time.Duration)
	LinkBack(peers []netip.Addr)
}

// Grace returns how long a peer may be silent after its link was lost, and whether
// hints count at all. It is called with each hint, by what Sessions.Do runs.
type Grace func() (d time.Duration, count bool)

// Hints are a daemon's Watcher, which may be missing: a daemon runs without one, and
// then only the silence of a timeout tells of a lost link. Create it with [Open].
type Hints struct {
	w     *Watcher // nil: there is none
	log   *slog.Logger
	ended atomic.Bool // by an error
}

// Open starts to look at links for the sessions. An error is one warning. bpf is
// Config.BPF.
func Open(s Sessions, bpf bool, grace Grace, log *slog.Logger) *Hints {
	w, err := New(Config{BPF: bpf, Log: log, OnPaths: tell(s, grace)})
	if err != nil {
		log.Warn("links are not watched: a lost one is noticed at heartbeat_timeout", "err", err)
		return &Hints{log: log}
	}
	return &Hints{w: w, log: log}
}

// Run watches until ctx ends.
func (h *Hints) Run(ctx context.Context) {
	if h.w == nil {
		return
	}
	if err := h.w.Run(ctx); err != nil {
		h.ended.Store(true)
		h.log.Warn("links are not watched any more: a lost one is noticed at heartbeat_timeout", "err", err)
	}
}

// Watch and Unwatch are the Watcher's; see there.
func (h *Hints) Watch(peer netip.Addr) {
	if h.w != nil {
		h.w.Watch(peer)
	}
}

// Unwatch takes one Watch back.
func (h *Hints) Unwatch(peer netip.Addr) {
	if h.w != nil {
		h.w.Unwatch(peer)
	}
}

// Source names the source in use as views have it, "none" without one. May be called
// from any goroutine.
func (h *Hints) Source() string {
	if h.w == nil || h.ended.Load() {
		return "none"
	}
	return h.w.Source().String()
}

// Missing returns the better sources that do not work here, best first, with why. May
// be called from any goroutine.
func (h *Hints) Missing() []Missing {
	if h.w == nil {
		return nil
	}
	return h.w.Missing()
}

// onPurpose is the grace of a link that somebody has set down, removed, or taken
// the route to: the session waits its whole timeout.
const onPurpose = time.Duration(math.MaxInt64)

// tell returns a Config.OnPaths that hands the changes to the sessions, all peers of
// one state at once: thousands may be behind one link.
func tell(s Sessions, grace Grace) func([]Path) {
	return func(paths []Path) {
		var peers [Off + 1][]netip.Addr
		for _, p := range paths {
			peers[p.State] = append(peers[p.State], p.Peer)
		}
		s.Do(func() {
			if len(peers[Good]) > 0 {
				s.LinkBack(peers[Good])
			}
			d, count := grace()
			if count && len(peers[Lost]) > 0 {
				s.LinkLost(peers[Lost], d)
			}
			if count && len(peers[Off]) > 0 {
				s.LinkLost(peers[Off], onPurpose)
			}
		})
	}
}
