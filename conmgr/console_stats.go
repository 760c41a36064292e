// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// stats are the counters of SHOW STATS.
type stats struct {
	accepted, refusedLimit, refusedStranger atomic.Int64
	startupFailed, cancels                  atomic.Int64
	targetsFound, targetsMissed             perTarget
	cancelsPassed                           atomic.Int64
	faults                                  faultCounts
	told                                    atomic.Int64
	bytesToInstances, bytesToClients        atomic.Int64
}

// showStats makes the rows of SHOW STATS. The names are an API.
func (s *Server) showStats() []row {
	s.admission.Lock()
	connections, descriptors := s.connections, s.descriptors
	s.admission.Unlock()
	c := &s.stats
	return []row{
		{"connections_accepted", c.accepted.Load()},
		{"connections_refused_limit", c.refusedLimit.Load()},
		{"connections_refused_stranger", c.refusedStranger.Load()},
		{"connections_open", connections},
		{"descriptors_used", descriptors},
		{"startup_failed", c.startupFailed.Load()},
		{"cancel_requests", c.cancels.Load()},
		{"targets_found", c.targetsFound.Load()},
		{"targets_missed", c.targetsMissed.Load()},
		{"passthrough_connected", s.passthrough.connected.Load()},
		{"passthrough_failed", s.passthrough.failed.Load()},
		{"passthrough_slow", s.passthrough.slow.Load()},
		{"faults", c.faults.Load()},
		{"applications_told", c.told.Load()},
		{"bytes_to_instances", c.bytesToInstances.Load()},
		{"bytes_to_clients", c.bytesToClients.Load()},
		{"proxy_connected", s.proxying.connected.Load()},
		{"proxy_failed", s.proxying.failed.Load()},
		{"proxy_slow", s.proxying.slow.Load()},
		{"cancel_requests_passed", c.cancelsPassed.Load()},
	}
}

// maxEvents is how many SHOW EVENTS keeps.
const maxEvents = 1000

// eventRing keeps the latest events.
type eventRing struct {
	mu   sync.Mutex // guards the following
	list []Event
	next int // the oldest, once the ring is full
}

func (r *eventRing) add(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < maxEvents {
		r.list = append(r.list, e)
		return
	}
	r.list[r.next] = e
	r.next = (r.next + 1) % maxEvents
}

// all returns a copy, oldest first.
func (r *eventRing) all() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Event, 0, len(r.list))
	out = append(out, r.list[r.next:]...)
	return append(out, r.list[:r.next]...)
}

// Event keeps an event for SHOW EVENTS. It does not log. A zero At is now.
func (s *Server) Event(e Event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	s.events.add(e)
}

// recordFault keeps, counts and logs what Apps.Fault did.
func (s *Server) recordFault(f Fault, n *InstanceView, told int, took time.Duration) {
	s.stats.faults.add(f.Index, f.Reason)
	s.stats.told.Add(int64(told))
	if told == 0 && f.Only != nil {
		return // a change of role that concerned nobody
	}
	s.Event(Event{Kind: "fault", Instance: new(n.Number), Reason: f.Reason, Silence: f.Silence,
		Applications: told, Detail: n.Why})
	if told > 0 {
		s.log.Log(context.Background(), s.opts.LevelLog, "applications told of a fault", "instance", n.Name(),
			"why", f.Reason, "silence", f.Silence.Round(time.Millisecond), "applications", told, "took", took.Round(time.Microsecond))
	}
}

// throttle lets one log line through per interval and counts the others.
type throttle struct {
	every time.Duration

	mu         sync.Mutex // guards the following
	next       time.Time
	suppressed int
}

// allow reports whether a line may be logged, and how many were not since the
// last one.
func (t *throttle) allow(now time.Time) (suppressed int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed = t.suppressed, 0
	t.next = now.Add(t.every)
	return suppressed, true
}
