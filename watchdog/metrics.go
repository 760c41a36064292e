// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/tally"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// Metrics are what the agent knows and has counted by one moment, for metrics. What
// is counted begins with the agent's process.
type Metrics struct {
	Started   time.Time
	Instance  wire.Instance
	Paused    bool // kills are
	PauseLeft time.Duration
	DryRun    bool

	Sessions      peer.Census
	SessionsLimit int
	RTT           []time.Duration // of the armed sessions, rising
	Clients       control.Clients
	Loop          peer.LoopStats

	Verdicts map[wire.Reason]uint64 // armed sessions that ended, but not by the agent's own doing
	Warrants map[Outcome]uint64     // OutcomePaused: not written
	// What warrants did that were no dry runs.
	SocketsDestroyed, BackendsTerminated, Survivors uint64
	Kills                                           tally.Counts // from warrant to result, done or survivors

	LinkHints  bool // watchdog.link_hints
	LinkSource string
	Links      linkhint.Figures

	Monitor, Terminator bool // the connections to the instance
	RightsMissing       int  // of the role
	CanDestroySockets   bool // proven
}

// verdictReasons are why an armed session can end; all of them stand in Metrics.
var verdictReasons = []wire.Reason{
	wire.ReasonTimeout, wire.ReasonLinkDown, wire.ReasonDisconnect, wire.ReasonPeerDown,
	wire.ReasonStop, wire.ReasonRestart, wire.ReasonShutdown, wire.ReasonLeave,
}

// counters are what the gate counts. They belong to the loop goroutine.
type counters struct {
	verdicts                     map[wire.Reason]uint64
	warrants                     map[Outcome]uint64
	sockets, backends, survivors uint64
	kills                        *tally.Histogram
}

func newCounters() counters {
	c := counters{
		verdicts: make(map[wire.Reason]uint64), warrants: make(map[Outcome]uint64),
		kills: tally.New(
			5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond,
			250*time.Millisecond, 500*time.Millisecond, time.Second, 2500*time.Millisecond, 5*time.Second, 10*time.Second, 30*time.Second,
		),
	}
	for _, r := range verdictReasons {
		c.verdicts[r] = 0
	}
	for _, o := range []Outcome{
		OutcomeDone, OutcomeSurvivors, OutcomeClosed, OutcomeDryRun, OutcomeHostAlive, OutcomeProtected, OutcomePaused,
	} {
		c.warrants[o] = 0
	}
	return c
}

// result counts what became of a warrant. One that joined another has the other's
// sockets and sessions: these were counted.
func (c *counters) result(r *Result) {
	c.warrants[r.Outcome]++
	if r.Warrant.DryRun || r.Joined != 0 {
		return
	}
	c.sockets += uint64(r.Sockets.Destroyed)
	c.backends += uint64(r.Ended)
	c.survivors += uint64(len(r.Survivors))
	if r.Outcome == OutcomeDone || r.Outcome == OutcomeSurvivors {
		c.kills.Observe(r.Took)
	}
}

// metrics gathers what metrics show, in one pass of the loop.
func (s *server) metrics(ctx context.Context) (*Metrics, error) {
	c, err := s.census(ctx)
	if err != nil {
		return nil, err
	}
	config := s.config()
	f := &Metrics{
		Started: s.started, Instance: s.monitor.State(), Paused: c.paused != nil, DryRun: config.DryRun,
		Sessions: c.Census, SessionsLimit: config.MaxHeartbeatConnections, RTT: c.RTT, Clients: c.clients, Loop: c.loop,
		Verdicts: c.counted.verdicts, Warrants: c.counted.warrants, SocketsDestroyed: c.counted.sockets,
		BackendsTerminated: c.counted.backends, Survivors: c.counted.survivors, Kills: c.counted.kills.Counts(),
		LinkHints: config.LinkHints, LinkSource: s.links.Source(), Links: s.links.Figures(),
		Monitor: s.monitor.Reached(), Terminator: s.terminator.PID() != 0,
	}
	if c.paused != nil {
		f.PauseLeft = max(0, c.paused.end.Sub(c.now))
	}
	slices.Sort(f.RTT)
	_, missing := s.rights.get()
	f.RightsMissing = len(missing)
	sockets := s.sockets.status()
	f.CanDestroySockets = sockets.Proven && sockets.Error == ""
	return f, nil
}

// copied returns what the loop does not change any more.
func (c *counters) copied() counters {
	out := *c
	out.verdicts, out.warrants = maps.Clone(c.verdicts), maps.Clone(c.warrants)
	return out
}
