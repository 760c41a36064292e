// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"slices"
	"sync"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// MetricsServer serves metrics at some places until ctx ends. It deals with trouble
// by itself: nothing of it may disturb the agent. look may be called from any
// goroutine and costs one pass of the loop over all sessions.
type MetricsServer func(ctx context.Context, at []conf.Endpoint, look func(context.Context) (*Metrics, error))

// serveMetrics has the figures served where watchdog.metrics_listen says, and
// elsewhere after a reload.
func (s *server) serveMetrics(ctx context.Context) {
	if s.options.Metrics == nil {
		return
	}
	for ctx.Err() == nil {
		at := s.config().MetricsListen
		serving, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		if len(at) > 0 {
			running.Go(func() { s.options.Metrics(serving, at, s.metrics) })
		}
		s.awaitMetricsChange(ctx, at)
		stop()
		running.Wait()
	}
}

// awaitMetricsChange returns when the figures are to be served elsewhere.
func (s *server) awaitMetricsChange(ctx context.Context, at []conf.Endpoint) {
	for slices.Equal(at, s.config().MetricsListen) {
		select {
		case <-ctx.Done():
			return
		case <-s.configured:
		}
	}
}
