// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestTerminatorOrder: look, see who is there, find and destroy, then the database,
// then verify. Who ends by the loss of the socket is named in the record.
func TestTerminatorOrder(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	scratchEventually(t, "verified at least once", func() bool { return s.count("read") >= 3 })
	s.set(func() { s.ended = true })
	r := s.result()
	if want := []string{"look", "read", "sockets", "read", "kill", "kill", "read"}; !slices.Equal(s.steps[:7], want) {
		t.Errorf("steps %v: want %v", s.steps, want)
	}
	if r.Outcome != OutcomeDone || r.Evidence.Text != "looked" || r.Sockets.Destroyed != 2 {
		t.Errorf("result %+v", r)
	}
	e := s.events.Latest(1)[0]
	if e.Evidence != "looked" || e.Sockets != "2 destroyed" || e.SocketsDestroyed != 2 || e.Backends != 2 || e.StepsMS["terminate"] <= 0 {
		t.Errorf("event %+v", e)
	}
	for _, step := range []string{"look", "sockets", "read", "terminate", "verify"} {
		if _, ok := e.StepsMS[step]; !ok {
			t.Errorf("no time of step %s: %v", step, e.StepsMS)
		}
	}
}

// TestTerminatorNamesAll: sessions that end by the loss of their sockets, before
// anybody signals them, are in the record.
func TestTerminatorNamesAll(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.set(func() { s.fragile = true })
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	if r := s.result(); r.Outcome != OutcomeDone || r.Backends != 2 || r.Ended != 2 || s.count("kill") > 0 {
		t.Errorf("result %+v, steps %v: want two ended without a signal", r, s.steps)
	}
	if e := s.events.Latest(1)[0]; !slices.Equal(e.PIDs, []int32{5, 6}) {
		t.Errorf("event %+v: want both named", e)
	}
}

// TestTerminatorAlive: the last look stops a warrant of a silent host, and none
// of a host that was known to live.
func TestTerminatorAlive(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.set(func() { s.alive, s.ended = true, true })
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	s.wantResults(map[uint64]Outcome{1: OutcomeHostAlive})
	if s.count("sockets") > 0 || s.count("kill") > 0 {
		t.Errorf("steps %v: want none behind the last look", s.steps)
	}
	s.term.Execute(stagedWarrant(2, CaseHang))
	s.wantResults(map[uint64]Outcome{2: OutcomeDone})
	if s.count("sockets") != 1 {
		t.Errorf("steps %v: want sockets destroyed", s.steps)
	}
}

// TestTerminatorSocketsAgain: when time is short the backends come first, then the
// sockets that were left, until none is.
func TestTerminatorSocketsAgain(t *testing.T) {
	t.Parallel()
	const rounds = 3
	s := stage(t, nil)
	s.set(func() { s.sockets = rounds*perRound - 1 })
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	scratchEventually(t, "killed", func() bool { return s.count("kill") > 0 })
	if n := s.count("sockets"); n != 1 {
		t.Errorf("steps %v: want the backends killed before the other sockets", s.steps)
	}
	s.set(func() { s.ended = true })
	r := s.result()
	if want := rounds*perRound - 1; r.Outcome != OutcomeDone || r.Sockets.Found != want || r.Sockets.Destroyed != want || r.Sockets.Left != 0 {
		t.Errorf("%v, %+v: want all %d sockets destroyed", r.Outcome, r.Sockets, want)
	}
	if n := s.count("sockets"); n != rounds {
		t.Errorf("%d rounds: want %d", n, rounds)
	}

	s.set(func() { s.sockets = -1 })
	s.term.Execute(stagedWarrant(2, CaseTimeout))
	if r := s.result(); r.Outcome != OutcomeDone || r.Sockets.Left != 1 || s.count("sockets") != rounds+1 {
		t.Errorf("%v, %+v, steps %v: want one round for a socket that stays", r.Outcome, r.Sockets, s.steps)
	}
}

// TestTerminatorSparesReplication: its ports are handed to the socket step, and
// without the database, which knows them, no socket is touched.
func TestTerminatorSparesReplication(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.term.Execute(stagedWarrant(1, CaseDisconnect))
	scratchEventually(t, "killed", func() bool { return s.count("kill") > 0 })
	s.set(func() {
		s.ended = true
		if !slices.Equal(s.spared, []uint16{41000}) {
			t.Errorf("spared %v: want the walsender's port", s.spared)
		}
	})
	if r := s.result(); r.Backends != 1 || s.count("kill") != 1 {
		t.Errorf("result %+v, steps %v: want the walsender's session spared", r, s.steps)
	}
}

// TestTerminatorSocketsWithoutDatabase: full, or down: sockets are destroyed all
// the same, unless replication is to be spared.
func TestTerminatorSocketsWithoutDatabase(t *testing.T) {
	t.Parallel()
	s := stage(t, func(c *TerminatorConfig) {
		c.Connect = func(context.Context) (*pgconn.PgConn, error) { return nil, &pgconn.PgError{Code: "53300"} }
	})
	for id, c := range map[uint64]Case{1: CaseTimeout, 2: CaseDisconnect} {
		w := stagedWarrant(id, c)
		w.Addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(id)})
		s.term.Execute(w)
	}
	scratchEventually(t, "two interim records", func() bool { return len(s.events.Latest(9)) == 2 })
	for _, e := range s.events.Latest(9) {
		want := "2 destroyed"
		if e.Warrant == 2 {
			want = "left alone: replication cannot be told"
		}
		if !strings.HasPrefix(e.Sockets, want) || e.Outcome != string(OutcomeStuck) {
			t.Errorf("event %+v: want sockets %q", e, want)
		}
	}
	if s.count("sockets") != 1 {
		t.Errorf("steps %v", s.steps)
	}
}

// TestTerminatorJoin: a second warrant of the address does not wait for the first,
// whose sessions take their time: one run does the work of both.
func TestTerminatorJoin(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	scratchEventually(t, "the first at work", func() bool { return s.count("kill") >= 2 })
	second := stagedWarrant(2, CaseTimeout)
	s.term.Execute(second)
	scratchEventually(t, "sockets destroyed again", func() bool { return s.count("sockets") == 2 })
	s.set(func() {
		if s.verdict.ID != 1 || s.verdict.Verdict != second.Verdict {
			t.Errorf("warrant %d with verdict %v: want the first run with the later verdict %v", s.verdict.ID, s.verdict.Verdict, second.Verdict)
		}
		s.ended = true
	})
	s.wantResults(map[uint64]Outcome{1: OutcomeDone, 2: OutcomeDone})
	for _, e := range s.events.Latest(2) {
		if e.Joined != e.Warrant-1 || e.Backends != 2 || e.SocketsDestroyed != 4 || e.StepsMS["look"] < 0 {
			t.Errorf("event %+v", e)
		}
	}
	if n := s.count("kill"); n != 2 {
		t.Errorf("%d kills: want one per session", n)
	}
}

// TestTerminatorJoinCancelled: the end of one warrant is not that of the other.
func TestTerminatorJoinCancelled(t *testing.T) {
	t.Parallel()
	for _, cancelled := range []uint64{1, 2} {
		s := stage(t, nil)
		s.term.Execute(stagedWarrant(1, CaseTimeout))
		scratchEventually(t, "the first at work", func() bool { return s.count("kill") >= 2 })
		s.term.Execute(stagedWarrant(2, CaseTimeout))
		scratchEventually(t, "joined", func() bool { return s.count("sockets") == 2 })
		s.term.Cancel(cancelled)
		s.wantResults(map[uint64]Outcome{cancelled: OutcomeClosed})
		reads := s.count("read")
		scratchEventually(t, "the other goes on", func() bool { return s.count("read") > reads })
		s.set(func() { s.ended = true })
		s.wantResults(map[uint64]Outcome{3 - cancelled: OutcomeDone})
	}
}

// TestTerminatorJoinAlive: a warrant whose own last look finds the host alive
// does not join; the first goes on.
func TestTerminatorJoinAlive(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	scratchEventually(t, "the first at work", func() bool { return s.count("kill") >= 2 })
	s.set(func() { s.alive = true })
	s.term.Execute(stagedWarrant(2, CaseTimeout))
	s.wantResults(map[uint64]Outcome{2: OutcomeHostAlive})
	s.set(func() { s.ended = true })
	s.wantResults(map[uint64]Outcome{1: OutcomeDone})
	if s.count("sockets") != 1 {
		t.Errorf("steps %v: want one run of the sockets", s.steps)
	}
}

// TestTerminatorWaits: a warrant that spares replication waits for one that does
// not, and is then executed.
func TestTerminatorWaits(t *testing.T) {
	t.Parallel()
	s := stage(t, nil)
	s.term.Execute(stagedWarrant(1, CaseTimeout))
	scratchEventually(t, "the first at work", func() bool { return s.count("kill") >= 2 })
	s.term.Execute(stagedWarrant(2, CaseDisconnect))
	scratchEventually(t, "the second has looked", func() bool { return s.count("look") == 2 })
	reads := s.count("read")
	scratchEventually(t, "the first goes on", func() bool { return s.count("read") > reads+1 })
	if s.count("sockets") != 1 {
		t.Errorf("steps %v: want the second to wait", s.steps)
	}
	s.set(func() { s.ended = true })
	s.wantResults(map[uint64]Outcome{1: OutcomeDone, 2: OutcomeDone})
	if s.count("sockets") != 2 {
		t.Errorf("steps %v: want the second executed", s.steps)
	}
}
