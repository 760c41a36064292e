// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// gathered is what the publisher's goroutine needs to describe sessions. It is kept
// from one time to the next: an agent that makes no garbage needs less memory.
type gathered struct {
	sessions []*peer.Session
	rows     []byte
}

// writeSessions writes a row for each armed session, each behind a comma, and
// returns how many there were.
func (s *server) writeSessions(ctx context.Context, write func(rows []byte) error) (n int, err error) {
	g := s.gathered
	if g == nil {
		g = new(gathered)
	}
	s.gathered = nil
	err = s.walk(ctx, func() []*peer.Session {
		g.sessions = s.gate.appendArmed(g.sessions[:0])
		return g.sessions
	}, func(session *peer.Session, clock wallClock) {
		if row, ok := s.gate.row(session, clock); ok {
			g.rows = row.Append(append(g.rows, ",\n"...))
			n++
		}
	}, func() error {
		defer func() { g.rows = g.rows[:0] }()
		if len(g.rows) == 0 {
			return nil // they ended meanwhile
		}
		return write(g.rows)
	})
	if err != nil {
		return 0, err // the loop may still be counting
	}
	clear(g.sessions) // those that end are not to be kept
	s.gathered = g
	return n, nil
}

// appendArmed appends the armed sessions.
func (g *gate) appendArmed(sessions []*peer.Session) []*peer.Session {
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
	if v, ok := g.docket.Of(s.ID()); ok {
		r.Armed = clock.of(v.Armed)
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
