// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestTerminatorStatements reads PostgreSQL's own log: every call of
// pg_terminate_backend stood alone, none in a WHERE clause.
func TestTerminatorStatements(t *testing.T) {
	b := newBench(t, allRights, nil, "log_statement = all", "log_line_prefix = '%u '")
	for range 70 - 40 {
		b.mustClient(lostHost, "app")
	}
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 30, 30)
	calls := 0
	for line := range strings.SplitSeq(b.log(), "\n") {
		if !strings.HasPrefix(line, "agent ") || !strings.Contains(line, "pg_terminate_backend") {
			continue
		}
		calls++
		if !strings.HasSuffix(line, "execute terminate: SELECT pg_catalog.pg_terminate_backend($1)") {
			t.Errorf("statement %q", line)
		}
	}
	if calls != 30 {
		t.Errorf("%d calls: want 30", calls)
	}
}

// TestTerminatorLatency measures the verdict until the locks are free.
func TestTerminatorLatency(t *testing.T) {
	b := newBench(t, allRights, nil)
	var worst, sum time.Duration
	const rounds = 20
	for range rounds {
		holder := b.mustClient(lostHost, "app")
		holder.mustExec("BEGIN; LOCK TABLE t")
		busy := b.mustClient(lostHost, "app")
		busy.background("SELECT sum(sqrt(i)) FROM generate_series(1, 2000000000) i")
		blocked := b.mustClient(otherHost, "app")
		done := blocked.background("SELECT * FROM t")
		scratchEventually(t, "blocked", func() bool {
			return strings.Contains(b.admin.scratchState(blocked.PID()), "Lock") &&
				strings.HasPrefix(b.admin.scratchState(busy.PID()), "active")
		})
		verdict := time.Now()
		b.term.Execute(b.warrant(lostHost, CaseTimeout))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		took := time.Since(verdict)
		worst, sum = max(worst, took), sum+took
		b.wantOutcome(b.result(), OutcomeDone, 2, 2)
		_ = blocked.Close(t.Context())
	}
	t.Logf("verdict to lock free, idle in transaction beside a busy session: mean %v, worst %v of %d", sum/rounds, worst, rounds)
	if worst > 2*time.Second {
		t.Errorf("worst %v: want well below a second", worst)
	}
}

// TestTerminatorMass ends the sessions of many hosts that died together, none
// of which may wait for another.
func TestTerminatorMass(t *testing.T) {
	b := newBench(t, allRights, nil, "max_connections = 230")
	const hosts, each = 50, 4
	for i := range hosts {
		for range each {
			b.mustClient(fmt.Sprintf("127.0.1.%d", i+1), "app")
		}
	}
	stranger := b.mustClient(otherHost, "app")
	verdict := time.Now()
	for i := range hosts {
		b.term.Execute(b.warrant(fmt.Sprintf("127.0.1.%d", i+1), CaseTimeout))
	}
	for range hosts {
		b.wantOutcome(b.result(), OutcomeDone, each, each)
	}
	t.Logf("%d hosts, %d sessions: all verified gone after %v", hosts, hosts*each, time.Since(verdict))
	if !stranger.alive() || b.count("client_addr << '127.0.1.0/24'") != 0 {
		t.Error("a stranger was touched, or somebody is left")
	}
	if n := len(b.events.Latest(hosts + 1)); n != hosts {
		t.Errorf("%d events: want %d", n, hosts)
	}
}
