// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Look-ups of routes are gathered into rounds. A round looks up every watched
// peer, some at a time so that events of links do not wait, and after it nothing is
// looked up for several times as long: a flood of routes costs a bounded share.
const (
	gather     = 20 * time.Millisecond // from the first change to the round
	roundShare = 20                    // rounds take at most one part of so many
	roundSome  = 32                    // peers at a time
)

// round is the state of the look-ups.
type round struct {
	start   *time.Timer
	armed   bool // start runs
	again   bool // routes changed while a round ran
	readAll bool // the devices are read again before the round

	waiting []netip.Addr // still to look up
	spent   time.Duration
	rest    mono.Instant // no round begins before
	broken  bool         // the last look-up failed: said once
	blind   bool         // the last look at devices failed: said once
}

// always is ready to be received from.
var always = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

// more is ready while a round is under way.
func (r *round) more() <-chan time.Time {
	if len(r.waiting) == 0 {
		return nil
	}
	return always
}

// staleRoutes has all ways looked up soon.
func (w *Watcher) staleRoutes() {
	r := &w.round
	switch {
	case r.armed:
	case len(r.waiting) > 0:
		r.again = true
	default:
		r.armed = true
		r.start.Reset(max(gather, r.rest.Sub(clock.Now())))
	}
}

func (w *Watcher) startRound() {
	r := &w.round
	r.armed = false
	if r.readAll {
		r.readAll = false
		w.readAll()
	}
	r.waiting = w.table.peers() // those that were waiting are among them
}

// takeRequests takes over what was asked for since the last time.
func (w *Watcher) takeRequests() {
	w.mu.Lock()
	requests := w.requests
	w.requests = nil
	w.mu.Unlock()
	for _, r := range requests {
		if r.end {
			w.table.unwatch(r.peer)
			w.polling.stale = true
			continue
		}
		w.checkPath(r.peer)
		unknown, paths := w.table.watch(r.peer)
		if unknown {
			w.round.waiting = append(w.round.waiting, r.peer)
		}
		w.deliver(paths)
	}
}

// lookUpSome goes on with a round.
func (w *Watcher) lookUpSome() {
	r := &w.round
	begin := clock.Now()
	some := r.waiting[:min(roundSome, len(r.waiting))]
	r.waiting = r.waiting[len(some):]
	for _, peer := range some {
		w.lookUp(peer)
	}
	now := clock.Now()
	r.spent += now.Sub(begin)
	if len(r.waiting) > 0 {
		return
	}
	r.end(now)
	if r.again {
		r.again = false
		w.staleRoutes()
	}
}

// end decides when the next round may begin.
func (r *round) end(now mono.Instant) {
	r.rest = now.Add((roundShare - 1) * r.spent)
	r.spent, r.waiting = 0, nil
}

// checkBad looks at the devices of a chain that are unknown or not good: a route may
// be newer than the news of its device, and a session that was armed over a link
// has proven that it is back before anybody told.
func (w *Watcher) checkBad(top int, now seen) {
	for index := range w.table.chain(top) {
		if d := w.table.devices[index]; !d.carrier && !d.loopback {
			w.check(index, now)
		}
	}
}

// checkPath looks again at what is said to be bad on the ways to a peer.
func (w *Watcher) checkPath(peer netip.Addr) {
	if p := w.table.paths[peer]; p != nil && p.state != Good {
		for _, index := range p.ways.devices {
			w.checkBad(index, told(clock.Now()))
		}
	}
}

// lookUp sets the ways to one peer. When the kernel cannot say them, they stay as
// they are.
func (w *Watcher) lookUp(peer netip.Addr) {
	if _, ok := w.table.paths[peer]; !ok {
		return // nobody watches it any more
	}
	var found ways
	if zone, ok := w.table.zoneOf(peer); ok {
		var err error
		found, err = w.kernel.ways(peer, zone)
		if err != nil {
			if !w.round.broken {
				w.log.Warn("a route cannot be looked up", "peer", peer, "err", err)
			}
			w.round.broken = true
			return
		}
	}
	w.round.broken = false
	now := told(clock.Now())
	for _, index := range found.devices {
		w.checkBad(index, now)
	}
	cause := event(device{}, 0, now)
	news, paths := w.table.setWays(peer, found, cause)
	if news {
		w.polling.stale = true
	}
	w.tell(cause, paths)
}
