// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Metrics are what conmgr knows and has counted by one moment, for metrics: what SHOW
// STATS, SHOW INSTANCES and SHOW APPLICATIONS say, with more detail. What is counted
// begins with conmgr's process.
type Metrics struct {
	Started time.Time
	View    *View
	// Silence is how long each instance of View was not heard of, negative for never.
	Silence []time.Duration
	// Verdicts are the armed sessions to each instance that ended, by the reason, and
	// Faults what its applications were told.
	Verdicts []map[wire.Reason]uint64
	Faults   []map[string]uint64
	Told     int64 // applications that were told of faults

	Applications map[AppKind]int
	Bound        []int // applications, by instance
	Ways         []WayFigures

	Accepted, Open                int64 // connections
	RefusedLimit, RefusedStranger int64
	StartupFailed                 int64
	Cancels, CancelsPassed        int64
	BytesToInstances              int64 // by pass-through and proxy mode
	BytesToClients                int64
	Descriptors, DescriptorsLimit int64 // of applications

	Loop       peer.LoopStats
	LinkSource string // off: link_hints
	Links      linkhint.Figures
}

// WayFigures are the connects of one kind of application, by target. Those of the
// console are the answers to TARGET.
type WayFigures struct {
	Kind              AppKind
	Connected, Failed []int64 // by Target
	Slow              int64   // connections to an instance that took a second
}

// MetricsServer serves metrics at some places until ctx ends. It deals with trouble
// by itself: nothing of it may disturb conmgr. look may be called from any
// goroutine.
type MetricsServer func(ctx context.Context, at []conf.Endpoint, look func(context.Context) (*Metrics, error))

// perTarget is a counter for each target. The zero value is ready; it is safe for
// concurrent use.
type perTarget [len(targetNames)]atomic.Int64

func (p *perTarget) add(t Target) { p[t].Add(1) }

// Load returns the sum.
func (p *perTarget) Load() (sum int64) {
	for i := range p {
		sum += p[i].Load()
	}
	return sum
}

func (p *perTarget) all() []int64 {
	out := make([]int64, len(p))
	for i := range p {
		out[i] = p[i].Load()
	}
	return out
}

// faultCounts counts faults by instance and reason.
type faultCounts struct {
	mu sync.Mutex // guards the following
	by map[int]map[string]uint64
}

func (c *faultCounts) add(instance int, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[int]map[string]uint64)
	}
	if c.by[instance] == nil {
		c.by[instance] = make(map[string]uint64)
	}
	c.by[instance][reason]++
}

// Load returns the sum.
func (c *faultCounts) Load() (sum int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reasons := range c.by {
		for _, n := range reasons {
			sum += int64(n)
		}
	}
	return sum
}

// of returns the faults of an instance, with every reason that there can be.
func (c *faultCounts) of(instance int) map[string]uint64 {
	out := make(map[string]uint64, len(faultReasons))
	for _, reason := range faultReasons {
		out[reason] = 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(out, c.by[instance])
	return out
}

// metrics is the part that the server of applications knows.
func (s *Server) metrics(f *Metrics) {
	s.admission.Lock()
	f.Open, f.Descriptors, f.DescriptorsLimit = s.connections, s.descriptors, s.budget
	s.admission.Unlock()
	c := &s.stats
	f.Accepted, f.RefusedLimit, f.RefusedStranger = c.accepted.Load(), c.refusedLimit.Load(), c.refusedStranger.Load()
	f.StartupFailed, f.Cancels, f.CancelsPassed = c.startupFailed.Load(), c.cancels.Load(), c.cancelsPassed.Load()
	f.BytesToInstances, f.BytesToClients = c.bytesToInstances.Load(), c.bytesToClients.Load()
	f.Told = c.told.Load()
	f.Ways = []WayFigures{
		{Kind: KindConsole, Connected: c.targetsFound.all(), Failed: c.targetsMissed.all()},
		s.passthrough.figures(KindPassthrough), s.proxying.figures(KindProxy),
	}
	f.Applications = s.apps.byKind()
	for i := range f.View.Instances {
		f.Bound = append(f.Bound, s.apps.Bound(i))
		f.Faults = append(f.Faults, c.faults.of(i))
	}
}

func (w *way) figures(kind AppKind) WayFigures {
	return WayFigures{Kind: kind, Connected: w.connected.all(), Failed: w.failed.all(), Slow: w.slow.Load()}
}

// byKind counts the applications, each kind of them.
func (a *Apps) byKind() map[AppKind]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	count := map[AppKind]int{KindConsole: 0, KindPassthrough: 0, KindProxy: 0}
	for _, m := range a.all {
		if m.kind != kindControl {
			count[m.kind]++
		}
	}
	return count
}

// verdictReasons are why the session to an instance can end.
var verdictReasons = []wire.Reason{
	wire.ReasonTimeout, wire.ReasonLinkDown, wire.ReasonPeerDown, wire.ReasonStop, wire.ReasonRestart, wire.ReasonShutdown,
}

// metrics is the part that the monitor knows. It waits for the loop until ctx ends.
func (m *monitor) metrics(ctx context.Context, f *Metrics) error {
	var seen Metrics // the loop's: with an error it may still write
	done := make(chan struct{})
	m.loop.Do(func() {
		defer close(done)
		seen.Loop = m.loop.Stats()
		for _, w := range m.watches {
			seen.Verdicts = append(seen.Verdicts, maps.Clone(w.verdicts))
			heard := time.Duration(-1)
			if last := w.session.Machine().LastValid(); !last.IsZero() {
				heard = max(0, m.loop.Now().Sub(last))
			}
			seen.Silence = append(seen.Silence, heard)
		}
	})
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.Loop, f.Verdicts, f.Silence = seen.Loop, seen.Verdicts, seen.Silence
	f.LinkSource = m.hintSource()
	if m.links != nil {
		f.Links = m.links.Figures()
	}
	return nil
}

// metrics gathers what metrics show.
func (d *daemon) metrics(ctx context.Context) (*Metrics, error) {
	f := &Metrics{Started: d.started, View: d.monitor.View()}
	if err := d.monitor.metrics(ctx, f); err != nil {
		return nil, err
	}
	d.server.metrics(f)
	return f, nil
}
