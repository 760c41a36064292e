// SPDX-License-Identifier: Apache-2.0

package watchdog

import "github.com/pgconmgr/pgconmgr/agent/wire"

// doorMissLimit is how many misses in a row make an instance unresponsive.
const doorMissLimit = 2

// facts is what is known of the instance, and how each observation changes it. It
// is pure. The status follows from the facts in this order:
//
//	down          the postmaster ended, is not there, or takes no sessions
//	unresponsive  two doors in a row missed, or a connect hung, or it is shutting
//	              down and waits for its clients
//	up            the state check answers, or at least the postmaster does
//	unknown       nothing yet
type facts struct {
	seen       observation // of the last check that answered
	known      bool        // seen is of the present life of the postmaster
	answered   bool        // something answered since it was last down
	down       bool
	hung       bool // the last connect got no answer in time
	stopping   bool // a smart shutdown waits for clients
	doorMisses int
	paused     bool
	dryRun     bool

	current wire.Instance
}

func (f *facts) onCheck(o observation) {
	f.seen, f.known, f.answered = o, true, true
	f.down, f.hung = false, false
}

// onFailure takes the kind of a failed check or connect. alive says that the
// postmaster is known to live.
func (f *facts) onFailure(kind failure, alive bool) {
	switch kind {
	case failRefused:
		if alive { // its socket is closed or removed, its sessions may live
			f.hung = true
			return
		}
		f.onDeath()
	case failNotYet:
		f.onDeath()
	case failHung:
		f.hung = true
	case failFull, failDenied:
		f.answered = true
		f.down, f.hung = false, false
	case failOdd, failOurs, failLost: // the old state stays
	}
}

// onDeath: the postmaster is gone, or all its sessions are. The next one may be
// anything, so what was seen is kept for display only.
func (f *facts) onDeath() {
	f.down, f.hung, f.stopping = true, false, false
	f.known, f.answered = false, false
	f.doorMisses = 0
}

// onStopping: a shutdown has begun that may wait for sessions to end by themselves.
func (f *facts) onStopping() { f.stopping = true }

func (f *facts) onDoor(answered bool) {
	switch {
	case f.down:
	case answered:
		f.doorMisses = 0
		f.answered = true
	default:
		f.doorMisses++
	}
}

func (f *facts) status() wire.Status {
	switch {
	case f.down:
		return wire.StatusDown
	case f.hung || f.stopping || f.doorMisses >= doorMissLimit:
		return wire.StatusUnresponsive
	case f.known || f.answered:
		return wire.StatusUp
	}
	return wire.StatusUnknown
}

// fold makes the state of the facts. It reports whether anything changed, and
// whether something but the WAL position did, which is a new generation.
func (f *facts) fold() (state wire.Instance, changed, news bool) {
	next := wire.Instance{Status: f.status(), Paused: f.paused, DryRun: f.dryRun, Generation: f.current.Generation}
	if f.known || f.down {
		next.Attribute, next.ReadOnly, next.Timeline = f.seen.attribute, f.seen.readOnly, f.seen.timeline
		next.WAL, next.SystemID, next.Port, next.StartUS = f.seen.wal, f.seen.systemID, f.seen.port, f.seen.startUS
	}
	old := f.current
	changed = next != old
	old.WAL = next.WAL
	news = next != old
	if news {
		next.Generation++
	}
	f.current = next
	return next, changed, news
}
