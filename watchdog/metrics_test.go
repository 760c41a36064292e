// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// web is where metrics are served.
type web struct {
	mu     sync.Mutex // guards the following
	places []string   // "+" and "-" in front of those that came and went
}

func (w *web) note(sign string, at []conf.Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places = append(w.places, sign+fmt.Sprint(at))
}

func (w *web) serve(ctx context.Context, at []conf.Endpoint, _ func(context.Context) (*Metrics, error)) {
	w.note("+", at)
	<-ctx.Done()
	w.note("-", at)
}

func (w *web) saw(want ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Equal(w.places, want)
}

// The metrics move with every reload that says so, and with no other.
func TestMetricsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	s := mustServer(t)
	w := new(web)
	s.options.Metrics = w.serve
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.serveMetrics(ctx) })
	set := func(value string) {
		s.reconfigure(func(src *Sources) {
			src.Flags = []conf.Entry{
				{Name: "watchdog.listen_addresses", Value: "127.0.0.2"}, {Name: "watchdog.port", Value: "40999"},
				{Name: "watchdog.metrics_listen", Value: value},
			}
		})
	}
	expect := func(want ...string) {
		t.Helper()
		agenttest.Eventually(t, time.Minute, fmt.Sprint(want), func() bool { return w.saw(want...) })
	}
	set("")
	set("27548")
	expect("+[localhost:27548]")
	set("27548")
	set("27548, *:1")
	expect("+[localhost:27548]", "-[localhost:27548]", "+[localhost:27548 *:1]")
	set("nonsense") // the old value stays
	set("")
	expect("+[localhost:27548]", "-[localhost:27548]", "+[localhost:27548 *:1]", "-[localhost:27548 *:1]")
	stop()
	running.Wait()
}

// What a warrant has done counts once, however many warrants it was done for, and what
// a dry run has seen not at all.
func TestResultsAreCounted(t *testing.T) {
	t.Parallel()
	c := newCounters()
	before := c.copied()
	for _, r := range []Result{
		{Warrant: Warrant{ID: 1}, Outcome: OutcomeDone, Ended: 3, Sockets: SocketsResult{Destroyed: 2}, Took: 8 * time.Millisecond},
		{Warrant: Warrant{ID: 2}, Outcome: OutcomeDone, Ended: 3, Sockets: SocketsResult{Destroyed: 2}, Joined: 1, Took: time.Millisecond},
		{Warrant: Warrant{ID: 3}, Outcome: OutcomeSurvivors, Ended: 1, Survivors: make([]Survivor, 2), Took: 10 * time.Second},
		{Warrant: Warrant{ID: 4, DryRun: true}, Outcome: OutcomeDryRun, Survivors: make([]Survivor, 9)},
		{Warrant: Warrant{ID: 5}, Outcome: OutcomeHostAlive},
	} {
		c.result(&r)
	}
	want := map[Outcome]uint64{
		OutcomeDone: 2, OutcomeSurvivors: 1, OutcomeClosed: 0, OutcomeDryRun: 1, OutcomeHostAlive: 1, OutcomeProtected: 0, OutcomePaused: 0,
	}
	if diff := cmp.Diff(want, c.warrants); diff != "" {
		t.Errorf("warrants (-want +got):\n%s", diff)
	}
	if c.sockets != 2 || c.backends != 4 || c.survivors != 2 {
		t.Errorf("%d sockets, %d backends, %d survivors", c.sockets, c.backends, c.survivors)
	}
	if k := c.kills.Counts(); k.Count != 2 || k.Sum != 10*time.Second+8*time.Millisecond || k.Within[1] != 1 {
		t.Errorf("kills %+v", k)
	}
	if before.warrants[OutcomeDone] != 0 || len(before.verdicts) != len(verdictReasons) {
		t.Error("a copy changed, or lacks a reason")
	}
}

// What happens is in the metrics, and what has ended is not lost from the counts.
func TestMetricsOfSessions(t *testing.T) {
	t.Parallel()
	o := mustOffice(t, t.TempDir())
	look := func() *Metrics {
		t.Helper()
		m, err := o.metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	vanish := o.mustConmgr(1)
	o.mustConmgr(2)
	agenttest.Eventually(t, time.Minute, "round trips", func() bool { return len(look().RTT) == 2 })
	m := look()
	if m.Sessions.ByState[wire.StateUp] != 2 || m.Clients.Armed != 2 || !slices.IsSorted(m.RTT) || m.SessionsLimit != 100 || m.Paused {
		t.Errorf("%+v", m)
	}
	o.mustAskPause()
	vanish()
	agenttest.Eventually(t, time.Minute, "a verdict", func() bool { return look().Verdicts[wire.ReasonDisconnect] == 1 })
	after := look()
	if !after.Paused || after.PauseLeft <= 0 || after.Sessions.ByState[wire.StateUp] != 1 ||
		after.Sessions.Frames.Received < m.Sessions.Frames.Received || after.Sessions.Frames.Sent < m.Sessions.Frames.Sent ||
		after.Clients.Armed != 1 || after.Clients.Spared+after.Clients.Suspended != 1 {
		t.Errorf("%+v, before %+v", after, m)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	o.end()
	if m, err := o.metrics(ended); m != nil || err == nil {
		t.Errorf("a loop that has ended: %+v, %v", m, err)
	}
}
