// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/tally"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics/metricstest"
	"github.com/pgconmgr/pgconmgr/watchdog"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// testFigures are of an agent that has seen everything.
func testFigures() *watchdog.Metrics {
	kills := tally.New(10*time.Millisecond, time.Second)
	kills.Observe(8 * time.Millisecond)
	kills.Observe(2 * time.Second)
	m := &watchdog.Metrics{
		Started:  time.Date(2026, 11, 25, 12, 0, 0, 500e6, time.UTC),
		Instance: wire.Instance{Status: wire.StatusUp, Attribute: wire.AttributePrimary, Timeline: 3},
		Paused:   true, PauseLeft: 20 * time.Minute,
		Sessions: peer.Census{
			ByState: [wire.StateSuspect + 1]int{wire.StateInit: 1, wire.StateUp: 5, wire.StateLate: 2, wire.StateSuspect: 4},
			Held:    4, Frames: peer.Frames{Sent: 1000, Received: 990, Lost: 10, PeerLost: 3, Invalid: 1},
			Listen: peer.ListenStats{Malformed: 2, Foreign: 3, Refused: 4, Forged: 5},
		},
		SessionsLimit: 100, RTT: []time.Duration{time.Millisecond, 2 * time.Millisecond, 30 * time.Millisecond},
		Clients: control.Clients{Armed: 11, Waiting: 1, Spared: 2, Suspended: 3, Warranted: 4},
		Loop:    peer.LoopStats{Stalls: 6, Fuses: 7},
		Verdicts: map[wire.Reason]uint64{
			wire.ReasonTimeout: 8, wire.ReasonLinkDown: 9, wire.ReasonPeerDown: 10, wire.ReasonShutdown: 11,
		},
		Warrants:         map[watchdog.Outcome]uint64{watchdog.OutcomeDone: 12, watchdog.OutcomeDryRun: 13, watchdog.OutcomePaused: 14},
		SocketsDestroyed: 15, BackendsTerminated: 16, Survivors: 17, Kills: kills.Counts(),
		LinkHints: true, LinkSource: "kprobe", Monitor: true, RightsMissing: 1, CanDestroySockets: true,
	}
	m.Links.Events[linkhint.Kprobe][linkhint.CarrierLost] = 18
	m.Links.Latency[linkhint.Kprobe] = kills.Counts()
	return m
}

func TestMetricsGolden(t *testing.T) {
	t.Parallel()
	metricstest.Check(t, program, families, func(s *metrics.Sink) { collect(s, testFigures()) })
}

// An agent that knows nothing yet can be looked at.
func TestMetricsOfNothing(t *testing.T) {
	t.Parallel()
	metricstest.MustText(t, program, families, func(s *metrics.Sink) { collect(s, &watchdog.Metrics{}) })
}
