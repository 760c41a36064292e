// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// clockSlack is how far two readings of the same clock may be apart before the
// wall clock counts as stepped.
const clockSlack = 250 * time.Millisecond

// readClocks are the clocks at two moments: when the terminator got the warrant
// and right after the answer with the database's time came.
type readClocks struct {
	verdict     mono.Instant
	taken       mono.Instant // boot-time clock when the warrant was taken
	takenWall   time.Time    // wall clock then
	asked       mono.Instant // boot-time clock before the question; zero: as read
	read        mono.Instant // boot-time clock after the answer
	readWall    time.Time    // wall clock then
	databaseNow time.Time    // clock_timestamp() in the answer
}

// cut is the rule which sessions began before the verdict. backend_start is
// wall-clock time, the verdict is boot time, and the wall clock can be stepped:
//
//   - By age: the verdict in the database's clock is its now less the time that
//     passed since the verdict. Right unless the clock was stepped after it.
//   - By the wall: the verdict's wall-clock time as it was when the warrant was
//     taken. Right unless the clock was stepped between the two.
//
// The first comes out too early by as long as the answer was on its way, at most
// the time of the whole question: a slow database must not make the last sessions
// before the verdict look new. So when the two agree within that time, no clock
// was stepped, and the second is exact. Else the earlier of both is used, so that
// no step after the warrant was taken makes a new session look old. A step
// backwards can make an old one look new; one that claims to begin in the
// future, while no step came after the verdict, is old beyond doubt.
type cut struct {
	before  time.Time // covered: began before this
	future  time.Time // covered too, if beyond: begun after this
	stepped bool      // the wall clock was stepped since the warrant was taken
}

func (c readClocks) cut() cut {
	drift := c.readWall.Sub(c.takenWall) - c.read.Sub(c.taken)
	byAge := c.databaseNow.Add(-c.read.Sub(c.verdict))
	byWall := c.takenWall.Add(-c.taken.Sub(c.verdict))
	out := cut{
		before:  byAge,
		future:  c.databaseNow.Add(time.Second),
		stepped: drift > clockSlack || drift < -clockSlack,
	}
	// A database with a clock of its own (another host) is judged by age alone.
	sameClock := c.readWall.Sub(c.databaseNow).Abs() < 10*time.Second
	if sameClock && (byWall.Before(byAge) || !out.stepped && !byWall.After(byAge.Add(c.latency()))) {
		out.before = byWall
	}
	return out
}

// latency is how long the question took.
func (c readClocks) latency() time.Duration {
	if c.asked.IsZero() {
		return 0
	}
	return c.read.Sub(c.asked)
}

func (c cut) covers(start time.Time) bool {
	return start.Before(c.before) || !c.stepped && start.After(c.future)
}

// choice is what a warrant covers of a snapshot, and why not the rest.
type choice struct {
	covered []backend
	newer   int // began after the verdict
	spared  int // replication, by watchdog.terminate_replication
	// walsenders are the client ports of all replication that is spared.
	walsenders []uint16
}

// choose applies a warrant to a snapshot. own are the agent's other sessions.
// Only what a client can open is ever covered; the types are those of
// GetBackendTypeDesc in miscinit.c.
func choose(w *Warrant, snap *snapshot, c cut, own []uint32) choice {
	var out choice
	for _, b := range snap.backends {
		if b.kind == "walsender" && !w.Replication && b.port > 0 {
			out.walsenders = append(out.walsenders, uint16(b.port))
		}
		switch {
		case b.pid == snap.self || containsPID(own, b.pid):
		case b.kind != "client backend" && b.kind != "walsender":
		case !c.covers(b.start):
			out.newer++
		case b.kind == "walsender" && !w.Replication:
			out.spared++
		default:
			out.covered = append(out.covered, b)
		}
	}
	return out
}

func containsPID(pids []uint32, pid int32) bool {
	for _, p := range pids {
		if int64(p) == int64(pid) {
			return true
		}
	}
	return false
}
