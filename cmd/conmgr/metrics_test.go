// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics"
	"github.com/pgconmgr/pgconmgr/cmd/internal/metrics/metricstest"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// testFigures are of a conmgr with a primary, and an instance never heard of.
func testFigures() *conmgr.Metrics {
	m := &conmgr.Metrics{
		Started: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		View: &conmgr.View{Instances: []conmgr.InstanceView{
			{
				Number: 0, Host: "db1", Addr: netip.MustParseAddr("10.99.0.2"), Port: 5432, Monitoring: conmgr.Monitored,
				Heartbeat: wire.StateUp, RTT: 250 * time.Microsecond, Lost: 3, Received: 997,
				Instance: wire.Instance{Status: wire.StatusUp, Attribute: wire.AttributePrimary, Timeline: 2},
			},
			{Number: 7, HostAddr: "fd99::3", Port: 5433},
		}},
		Silence: []time.Duration{42 * time.Millisecond, -1},
		Verdicts: []map[wire.Reason]uint64{
			{wire.ReasonTimeout: 1, wire.ReasonLinkDown: 2}, {wire.ReasonTimeout: 0},
		},
		Faults: []map[string]uint64{{"timeout": 1, "role change": 3}, {"down": 0}},
		Told:   17, Applications: map[conmgr.AppKind]int{conmgr.KindConsole: 1, conmgr.KindPassthrough: 2, conmgr.KindProxy: 3},
		Bound: []int{6, 0},
		Ways: []conmgr.WayFigures{
			{Kind: conmgr.KindConsole, Connected: []int64{1, 2}, Failed: []int64{3, 4}},
			{Kind: conmgr.KindProxy, Connected: []int64{5, 6}, Failed: []int64{7, 8}, Slow: 9},
		},
		Accepted: 10, Open: 6, RefusedLimit: 11, RefusedStranger: 12, StartupFailed: 13, Cancels: 14, CancelsPassed: 15,
		BytesToInstances: 1 << 40, BytesToClients: 16, Descriptors: 9, DescriptorsLimit: 1000,
		Loop: peer.LoopStats{Stalls: 2}, LinkSource: "off",
	}
	m.Links.Events[linkhint.Rtnetlink][linkhint.AdminDown] = 4
	return m
}

func TestMetricsGolden(t *testing.T) {
	t.Parallel()
	metricstest.Check(t, program, families, func(s *metrics.Sink) { collect(s, testFigures()) })
}
