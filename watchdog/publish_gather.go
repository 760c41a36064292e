// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// gatherChunk is how many sessions are looked at in one go on the loop: beats wait
// for it.
const gatherChunk = 128

// call runs f on the loop and waits for it, or for the end of ctx.
func (s *server) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	s.loop.Do(func() {
		f()
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeSessions writes a row for each armed session, each behind a comma, and
// returns how many there were. The rows are of slightly different moments.
func (s *server) writeSessions(ctx context.Context, write func(rows []byte) error) (n int, err error) {
	var sessions []*peer.Session
	if err := s.call(ctx, func() { sessions = s.gate.armed() }); err != nil {
		return 0, err
	}
	var rows []byte
	for chunk := range slices.Chunk(sessions, gatherChunk) {
		err := s.call(ctx, func() {
			rows = rows[:0]
			wall := wallClock{time.Now(), s.loop.Now()}
			for _, session := range chunk {
				if row, ok := s.gate.row(session, wall); ok {
					rows = row.Append(append(rows, ",\n"...))
					n++
				}
			}
		})
		if err == nil {
			err = write(rows)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// wallClock is one moment on both clocks.
type wallClock struct {
	wall time.Time
	at   mono.Instant
}

func (c wallClock) of(i mono.Instant) time.Time { return c.wall.Add(i.Sub(c.at)) }

// armed returns the armed sessions.
func (g *gate) armed() []*peer.Session {
	sessions := make([]*peer.Session, 0, g.docket.Len())
	for s := range g.listener.Sessions() {
		if heartbeat.Armed(s.Machine().State()) {
			sessions = append(sessions, s)
		}
	}
	return sessions
}

// row describes a session; ok is false when it is not armed any more.
func (g *gate) row(s *peer.Session, clock wallClock) (r SessionRow, ok bool) {
	m := s.Machine()
	timers, stats := m.Config(), m.Stats()
	conmgr, _ := s.Conmgr()
	r = SessionRow{
		Addr: bareAddr(s.Remote().Addr()), Port: s.Remote().Port(),
		Interval: timers.Interval, Timeout: timers.Timeout, State: m.State(),
		UDP: timers.Datagram, Keyed: s.Key() != wire.ID{}, Protected: s.Protected,
		Heard: clock.of(m.LastValid()), RTT: stats.RTT, Received: stats.Received, Lost: stats.Lost,
		Sent: stats.Sent, SentLost: uint64(stats.PeerLost), Session: s.ID(), Conmgr: conmgr,
	}
	if armed := g.docket.ArmedSince(s.ID()); !armed.IsZero() {
		r.Armed = clock.of(armed)
	}
	return r, heartbeat.Armed(r.State)
}

// killsWord says whether sessions of lost clients would be terminated now.
func killsWord(i wire.Instance) string {
	switch {
	case i.DryRun:
		return "dry run"
	case i.Paused:
		return "paused"
	}
	return "enabled"
}
