// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// leastWait is the shortest wait. A conmgr whose session ended
// tries again after heartbeat_connect_interval, 1 s by default, and its SYN may
// get lost once: with a timeout of less no living conmgr could ever come back.
const leastWait = 3 * time.Second

// wait gives a relation one timeout from now to come back. granted says that
// this is the policy's wait; the wait of a restored client is not, the policy
// is asked when it is over.
func (d *Docket) wait(now mono.Instant, r *relation, granted bool, out *Orders) {
	r.state, r.granted = relationWaiting, granted
	r.deadline = now.Add(waitOf(r))
	d.schedule(now, r)
	out.Persist = true
}

// waitOf is how long a waiting relation has to come back.
func waitOf(r *relation) time.Duration { return max(r.timeout, leastWait) }

// quarter is the step in which a wait is watched.
func quarter(r *relation) time.Duration { return waitOf(r) / 4 }

func (d *Docket) schedule(now mono.Instant, r *relation) {
	r.wake = r.deadline.Min(now.Add(quarter(r)))
	d.waits.put(r)
}

// expiredWait looks at a waiting relation whose wake has come.
func (d *Docket) expiredWait(now mono.Instant, r *relation, out *Orders) {
	if now.Sub(r.wake) > quarter(r) {
		r.ownPause = true
		r.deadline = now.Add(waitOf(r))
		d.event(now, DocketWaiting, r, out)
	}
	switch {
	case now.Before(r.deadline):
		d.schedule(now, r)
		return
	case !r.granted && d.policy.action(r.kase) == Wait:
		d.wait(now, r, true, out)
		d.event(now, DocketWaiting, r, out)
		return
	}
	d.judge(now, r, out)
	d.reweigh(now, r.client.Addr, out)
}

// judge decides about a relation that is to be terminated.
func (d *Docket) judge(now mono.Instant, r *relation, out *Orders) {
	d.waits.remove(r)
	r.deadline = 0
	switch {
	case d.policy.protects(r.client.Addr):
		d.event(now, DocketProtected, r, out)
		d.remove(r, out)
	case d.policy.action(r.kase) == Ignore:
		d.ignore(now, r, out)
	case !d.pausedUntil.IsZero() && now.Before(d.pausedUntil):
		r.state = relationSuspended
		d.event(now, DocketSuspended, r, out)
	case d.shielded(r):
		if r.state != relationSpared {
			r.state, r.hostAlive = relationSpared, true
			d.event(now, DocketSpared, r, out)
		}
	default:
		d.warrant(now, r, out)
	}
}

func (d *Docket) ignore(now mono.Instant, r *relation, out *Orders) {
	d.event(now, DocketIgnored, r, out)
	d.remove(r, out)
}

// shielded reports whether another relation of the address keeps its sessions
// alive.
func (d *Docket) shielded(r *relation) bool {
	if d.policy.SharedAddress == TerminateShared {
		return false
	}
	return slices.ContainsFunc(d.sites[r.client.Addr], func(o *relation) bool {
		return o != r && (o.state == relationArmed || o.state == relationWaiting && r.hostAlive)
	})
}

// reweigh judges the spared relations of an address again, after another one
// of it has changed.
func (d *Docket) reweigh(now mono.Instant, addr netip.Addr, out *Orders) {
	for _, r := range slices.Clone(d.sites[addr]) {
		if r.state == relationSpared && !d.shielded(r) {
			d.judge(now, r, out)
		}
	}
}

func (d *Docket) warrant(now mono.Instant, r *relation, out *Orders) {
	d.lastID++
	r.state, r.warrant, r.dryRun = relationWarranted, d.lastID, d.policy.DryRun
	d.warrants[d.lastID] = r
	verdict := r.verdict
	for _, o := range d.sites[r.client.Addr] {
		if o.state == relationSpared {
			o.state, o.warrant, o.dryRun = relationWarranted, d.lastID, d.policy.DryRun
			verdict = max(verdict, o.verdict)
		}
	}
	out.Execute = append(out.Execute, Warrant{
		ID: d.lastID, Addr: r.client.Addr, Conmgr: r.client.Conmgr, Case: r.kase, Reason: r.reason,
		Session: r.session, Generation: uint64(r.generation), LastValid: r.lastValid, Verdict: verdict,
		Issued: now, Timeout: r.timeout, Interval: r.interval, OwnPause: r.ownPause,
		Replication: d.policy.replication(r.hostAlive), DryRun: d.policy.DryRun,
	})
	d.event(now, DocketWarrant, r, out)
}

// revoke takes back the warrant that lead leads: it and all that the warrant
// covers get the given state.
func (d *Docket) revoke(lead *relation, to relationState) {
	id := lead.warrant
	delete(d.warrants, id)
	for _, r := range d.sites[lead.client.Addr] {
		if r.state == relationWarranted && r.warrant == id {
			r.state, r.warrant = to, 0
		}
	}
}

// closeSite ends what back's return ends: its own wait and every open warrant
// of its address.
func (d *Docket) closeSite(now mono.Instant, back *relation, out *Orders) {
	d.waits.remove(back)
	for _, r := range slices.Clone(d.sites[back.client.Addr]) {
		if r.state != relationWarranted {
			continue
		}
		if d.warrants[r.warrant] == r {
			out.Close = append(out.Close, r.warrant)
			if r != back {
				d.event(now, DocketComeback, r, out)
			}
			delete(d.warrants, r.warrant)
		}
		if r != back {
			d.noteTerminated(r)
			d.remove(r, out)
		}
	}
}

// event appends what happened to r. Its DryRun is the policy's now.
func (d *Docket) event(now mono.Instant, kind DocketKind, r *relation, out *Orders) {
	e := DocketEvent{
		At: now, Kind: kind, Addr: r.client.Addr, Conmgr: r.client.Conmgr, Session: r.session,
		Warrant: r.warrant, Case: r.kase, Reason: r.reason, Silence: r.silence, DryRun: d.policy.DryRun,
	}
	if r.state == relationWaiting {
		e.Until = r.deadline
	}
	out.Events = append(out.Events, e)
}
