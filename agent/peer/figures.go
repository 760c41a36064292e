// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// LoopStats are running figures of a loop.
type LoopStats struct {
	Stalls uint64       // passes so late that nobody was judged for the silence
	Fuses  uint64       // times that the fuse held verdicts
	Fused  mono.Instant // the last time, zero for never
}

// Stats returns the running figures. It is called on the loop goroutine.
func (l *Loop) Stats() LoopStats { return l.stats }

// Frames counts the frames of many sessions.
type Frames struct {
	Sent, Received uint64
	Lost           uint64 // gaps in the peers' sequences
	PeerLost       uint64 // what the peers say they missed
	Invalid        uint64 // dropped: stale, of another session, bad in the state
}

func (f *Frames) add(s heartbeat.Stats) {
	f.Sent += s.Sent
	f.Received += s.Received
	f.Lost += s.Lost
	f.PeerLost += uint64(s.PeerLost)
	f.Invalid += uint64(s.Invalid)
}

// Census is what a listener's sessions are, and what it has received.
type Census struct {
	ByState [wire.StateSuspect + 1]int // sessions
	Held    int                        // of them, whose verdict the fuse holds
	RTT     []time.Duration            // of the armed ones, as far as it is known; in no order
	Frames  Frames                     // of all sessions, those that have ended included
	Listen  ListenStats
}

// Census walks over all sessions. It is called on the loop goroutine.
func (ln *Listener) Census() Census {
	c := Census{Frames: ln.ended, Listen: ln.stats, RTT: make([]time.Duration, 0, ln.armed)}
	for _, s := range ln.byID {
		state, stats := s.m.State(), s.m.Stats()
		c.ByState[state]++
		c.Frames.add(stats)
		if heartbeat.Armed(state) && stats.RTT > 0 {
			c.RTT = append(c.RTT, stats.RTT)
		}
		if s.m.Held() {
			c.Held++
		}
	}
	return c
}
