// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// lateness watches the beats that come to the client host for a while and returns
// how late each was.
func (w *world) lateness(ctx context.Context, d time.Duration) ([]time.Duration, error) {
	var mu sync.Mutex // guards the following
	beats := map[netip.AddrPort][]mono.Instant{}
	capture, err := w.client.CaptureEach(portHeartbeat, func(p agenttest.Packet) {
		if !p.Sent && p.Src.Port() == portHeartbeat {
			mu.Lock()
			defer mu.Unlock()
			beats[p.Dst] = append(beats[p.Dst], p.At)
		}
	})
	if err != nil {
		return nil, err
	}
	defer capture.Close()
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	if _, _, err := capture.Frames(netip.Addr{}); err != nil {
		return nil, err // packets were lost on the way here
	}
	mu.Lock()
	defer mu.Unlock()
	var late []time.Duration
	for _, at := range beats {
		late = append(late, behindSchedule(at, interval)...)
	}
	return late, nil
}

// behindSchedule is how much later each of a session's beats came than the
// schedule that its most punctual beat gives.
func behindSchedule(at []mono.Instant, interval time.Duration) []time.Duration {
	late := make([]time.Duration, len(at))
	least := time.Duration(0)
	for i, t := range at {
		// Off the first beat's schedule, in -interval/2 .. interval/2.
		off := (t.Sub(at[0])+interval/2)%interval - interval/2
		late[i] = off
		least = min(least, off)
	}
	for i := range late {
		late[i] -= least
	}
	return late
}
