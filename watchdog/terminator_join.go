// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"maps"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// enter makes a run that has looked the active one of its address, or lets it
// join that. It stays in the queue when neither can be.
func (t *Terminator) enter(r *run) {
	addr := bareAddr(r.w.Addr)
	switch lead := t.active[addr]; {
	case lead == nil:
		t.active[addr] = r
	case lead.takes(r):
		lead.joined = append(lead.joined, r)
		lead.reopen()
	default:
		return
	}
	t.dequeue(r)
}

func (t *Terminator) dequeue(r *run) {
	t.queue = slices.DeleteFunc(t.queue, func(q *run) bool { return q == r })
}

// takes reports whether another run differs in nothing but its verdict.
func (r *run) takes(other *run) bool {
	return !r.cancelled() && r.w.DryRun == other.w.DryRun && r.w.Replication == other.w.Replication
}

// verdict is the latest of the warrants that are not cancelled.
func (r *run) verdict() mono.Instant {
	verdict := r.w.Verdict
	for _, j := range r.joined {
		if !j.stopped() {
			verdict = max(verdict, j.w.Verdict)
		}
	}
	return verdict
}

// reopen sends a run back to the sockets: its verdict is a later one now.
func (r *run) reopen() {
	r.phase, r.due = phaseSockets, clock.Now()
	r.deadline, r.looks, r.backoff = 0, 0, 0
}

// closeCancelled records what was cancelled. What has joined a cancelled run and
// was not cancelled itself goes on alone.
func (t *Terminator) closeCancelled(r *run) {
	joined := r.joined
	r.joined = nil
	var living []*run
	for _, j := range joined {
		if j.stopped() {
			j.adopt(r)
			t.finish(j, OutcomeClosed)
		} else {
			living = append(living, j)
		}
	}
	if !r.stopped() {
		r.joined = living
		return
	}
	t.finish(r, OutcomeClosed)
	t.queue = append(t.queue, living...)
}

// adopt takes over what another run has done for this one.
func (r *run) adopt(lead *run) {
	r.lead = lead.w.ID
	r.targets, r.newer, r.spared, r.sockets = lead.targets, lead.newer, lead.spared, lead.sockets
	for _, step := range slices.Collect(maps.Keys(lead.steps)) {
		if step != "look" {
			r.steps[step] = lead.steps[step]
		}
	}
	if r.err == nil {
		r.err = lead.err
	}
}

// finish records the end of a run and of those that have joined it, and tells.
func (t *Terminator) finish(r *run, outcome Outcome) {
	t.end(r, outcome)
	for _, j := range r.joined {
		j.adopt(r)
		t.end(j, outcome)
	}
}

func (t *Terminator) end(r *run, outcome Outcome) {
	t.forget(r)
	result := t.record(r, outcome)
	if t.cfg.Done != nil {
		t.cfg.Done(result)
	}
}

func (t *Terminator) forget(r *run) {
	r.stopWork()
	t.mu.Lock()
	delete(t.byID, r.w.ID)
	t.mu.Unlock()
	if addr := bareAddr(r.w.Addr); t.active[addr] == r {
		delete(t.active, addr)
	}
	t.dequeue(r)
}

// stopAll records what the agent's end leaves behind. Nobody is told: the
// clients stay on the docket, and so in the file of armed sessions.
func (t *Terminator) stopAll() {
	runs := t.queue
	t.queue = nil
	for _, r := range t.active {
		runs = append(append(runs, r), r.joined...)
		for _, j := range r.joined {
			j.adopt(r)
		}
	}
	for _, r := range runs {
		t.forget(r)
		t.record(r, OutcomeStopped)
	}
}
