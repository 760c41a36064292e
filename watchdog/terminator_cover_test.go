// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// TestCut: an hour's step of the wall clock, in either direction and before or
// after the warrant was taken, never makes a new session look old.
func TestCut(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	base := time.Date(2026, 3, 29, 2, 0, 0, 0, time.UTC)
	boot := mono.Instant(hour) // of the verdict
	for _, tc := range []struct {
		name          string
		before, after time.Duration // steps: before the verdict, after the warrant was taken
		covered       bool          // the session of ten minutes before
	}{
		{"no step", 0, 0, true},
		{"forward before", hour, 0, true},
		{"back before", -hour, 0, true},
		{"forward after", 0, hour, true},
		{"back after", 0, -hour, false},
	} {
		wall := func(at time.Duration) time.Time { // at relative to the verdict
			w := base.Add(at)
			if at >= -5*time.Minute {
				w = w.Add(tc.before)
			}
			if at >= 3*time.Second {
				w = w.Add(tc.after)
			}
			return w
		}
		c := readClocks{
			verdict: boot, taken: boot.Add(time.Millisecond), takenWall: wall(time.Millisecond),
			read: boot.Add(5 * time.Second), readWall: wall(5 * time.Second), databaseNow: wall(5 * time.Second).Add(-time.Millisecond),
		}.cut()
		if got := c.covers(wall(-10 * time.Minute)); got != tc.covered {
			t.Errorf("%s: old session covered %v: want %v", tc.name, got, tc.covered)
		}
		if !c.covers(wall(-time.Minute)) && tc.after >= 0 {
			t.Errorf("%s: session of a minute before is not covered", tc.name)
		}
		for _, at := range []time.Duration{2 * time.Millisecond, time.Second, 4 * time.Second} {
			if c.covers(wall(at)) {
				t.Errorf("%s: session %v after the verdict is covered", tc.name, at)
			}
		}
	}
}

// TestCutForeignClock: a database whose clock is another one is judged by age.
func TestCutForeignClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	database := now.Add(24 * time.Hour)
	c := readClocks{verdict: 10e9, taken: 10e9, takenWall: now, read: 11e9, readWall: now.Add(time.Second), databaseNow: database}.cut()
	if !c.covers(database.Add(-1100*time.Millisecond)) || c.covers(database.Add(-900*time.Millisecond)) {
		t.Errorf("cut at %v before the database's now: want 1 s", database.Sub(c.before))
	}
}

// TestCutSlowDatabase: the answer was on its way for 400 ms. What began before the
// verdict is covered all the same, what began after it is not; a step of the clock
// that shows is not taken for slowness.
func TestCutSlowDatabase(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	clocks := readClocks{
		verdict: 10e9, taken: 10e9, takenWall: now, asked: 10e9 + 1e6,
		read: 10e9 + 500e6, readWall: now.Add(500 * time.Millisecond), databaseNow: now.Add(100 * time.Millisecond),
	}
	c := clocks.cut()
	if !c.covers(now.Add(-time.Millisecond)) || c.covers(now.Add(time.Millisecond)) {
		t.Errorf("cut %v after the verdict: want 0", c.before.Sub(now))
	}
	clocks.takenWall = now.Add(time.Second) // stepped forth before, back after
	if c := clocks.cut(); c.covers(now.Add(time.Millisecond)) {
		t.Errorf("cut %v after the verdict though the clock was stepped", c.before.Sub(now))
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	verdict := time.Unix(1000, 0)
	old, fresh := verdict.Add(-time.Minute), verdict.Add(time.Millisecond)
	snap := snapshot{self: 1, backends: []backend{
		{pid: 1, start: old, kind: "client backend"},
		{pid: 2, start: old, kind: "client backend"},
		{pid: 3, start: old, kind: "client backend"},
		{pid: 4, start: fresh, kind: "client backend"},
		{pid: 5, start: verdict, kind: "client backend"},
		{pid: 6, start: old, kind: "walsender", port: 41000},
		{pid: 7, start: fresh, kind: "walsender", port: 41001},
		{pid: 8, start: old, kind: "autovacuum worker"},
		{pid: 9, start: old, kind: ""},
	}}
	c := cut{before: verdict, future: verdict.Add(time.Hour)}
	for _, replication := range []bool{false, true} {
		got := choose(&Warrant{Replication: replication}, &snap, c, []uint32{2})
		want, spared := []int32{3}, 1
		if ports := fmt.Sprint(got.walsenders); replication && ports != "[]" || !replication && ports != "[41000 41001]" {
			t.Errorf("replication %v: walsenders at %s", replication, ports)
		}
		if replication {
			want, spared = []int32{3, 6}, 0
		}
		if len(got.covered) != len(want) || got.newer != 3 || got.spared != spared {
			t.Errorf("replication %v: %+v: want pids %v, 3 newer, %d spared", replication, got, want, spared)
			continue
		}
		for i, pid := range want {
			if got.covered[i].pid != pid {
				t.Errorf("replication %v: pid %d: want %d", replication, got.covered[i].pid, pid)
			}
		}
	}
}
