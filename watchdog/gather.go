// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// gatherChunk is how many sessions are looked at in one go on the loop: beats wait
// for it.
const gatherChunk = 128

// call runs f on the loop and waits for it, or for the end of ctx: with an error f
// may still run, and what it writes to must be left alone.
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

// walk looks at the sessions that list returns, some at a time, on the loop: they are
// of slightly different moments. After each time it calls then, off the loop; an
// error of that ends the walk.
func (s *server) walk(ctx context.Context, list func() []*peer.Session, look func(*peer.Session, wallClock), then func() error) error {
	var sessions []*peer.Session
	if err := s.call(ctx, func() { sessions = list() }); err != nil {
		return err
	}
	for chunk := range slices.Chunk(sessions, gatherChunk) {
		err := s.call(ctx, func() {
			clock := wallClock{time.Now(), s.loop.Now()}
			for _, session := range chunk {
				look(session, clock)
			}
		})
		if err == nil {
			err = then()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wallClock is one moment on both clocks.
type wallClock struct {
	wall time.Time
	at   mono.Instant
}

func (c wallClock) of(i mono.Instant) time.Time { return c.wall.Add(i.Sub(c.at)) }

// Sessions implements control.Handler: every heartbeat session, then every client
// whose session has ended and whom the docket is not done with.
func (s *server) Sessions(ctx context.Context, each func(*control.Session) error) error {
	rows := make([]control.Session, 0, gatherChunk)
	all := func() []*peer.Session { return slices.Collect(s.gate.listener.Sessions()) }
	err := s.walk(ctx, all, func(session *peer.Session, clock wallClock) {
		if session.Machine().State() != wire.StateDown {
			rows = append(rows, s.gate.describe(session, clock))
		}
	}, func() error {
		defer func() { rows = rows[:0] }()
		for i := range rows {
			if err := each(&rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.unarmed(ctx, each)
}

// unarmed tells of the clients without a session.
func (s *server) unarmed(ctx context.Context, each func(*control.Session) error) error {
	var views []View
	var now mono.Instant
	if err := s.call(ctx, func() { views, now = s.gate.docket.Unarmed(), s.loop.Now() }); err != nil {
		return err
	}
	for i := range views {
		row := control.Session{Addr: views[i].Addr, State: wire.StateDown.String()}
		describeClient(&row, &views[i], wallClock{time.Now(), now})
		if err := each(&row); err != nil {
			return err
		}
	}
	return nil
}

// describe describes a session. On the loop.
func (g *gate) describe(s *peer.Session, clock wallClock) control.Session {
	m := s.Machine()
	r, _ := g.row(s, clock)
	_, incarnation := s.Conmgr()
	row := control.Session{
		Addr: r.Addr, Port: r.Port, Transport: transportName(r.UDP), State: r.State.String(), Reason: m.Why().String(),
		IntervalMS: r.Interval.Milliseconds(), TimeoutMS: r.Timeout.Milliseconds(),
		RTTMS: float64(r.RTT) / float64(time.Millisecond), Received: r.Received, Lost: r.Lost,
		Sent: r.Sent, SentLost: r.SentLost, Held: m.Held(),
		Session: r.Session, Conmgr: hex.EncodeToString(r.Conmgr[:]), Incarnation: incarnation, Protected: r.Protected,
	}
	if r.Keyed {
		row.Key = key.Printable(s.Key())
	}
	if heard := m.LastValid(); !heard.IsZero() {
		row.HeardMS = new(max(0, clock.at.Sub(heard).Milliseconds()))
	}
	if v, ok := g.docket.Of(s.ID()); ok {
		describeClient(&row, &v, clock)
	}
	return row
}

// describeClient adds what the docket knows of a client. The reason that a session
// ended for stands in the place of that of its last change.
func describeClient(row *control.Session, v *View, clock wallClock) {
	row.Relation, row.TimeoutMS = v.State, v.Timeout.Milliseconds()
	row.Conmgr, row.Incarnation = hex.EncodeToString(v.Conmgr[:]), v.Incarnation
	row.Session, row.Generation = v.Session, v.Generation
	if !v.Armed.IsZero() {
		row.Armed = new(clock.of(v.Armed).UTC())
	}
	if v.State == relationArmed.String() {
		return
	}
	row.Case, row.Reason, row.Warrant = v.Case.String(), v.Reason.String(), v.Warrant
	row.SilentMS = new(v.Silence.Milliseconds())
	if !v.Until.IsZero() {
		row.LeftMS = new(max(0, v.Until.Sub(clock.at).Milliseconds()))
	}
}

// census is the part of the status that is counted on the loop.
type census struct {
	peer.Census
	loop    peer.LoopStats
	clients control.Clients
	counted counters
	paused  *Pause
	now     mono.Instant
}

func (s *server) census(ctx context.Context) (census, error) {
	var c census
	err := s.call(ctx, func() {
		c = census{Census: s.gate.listener.Census(), loop: s.loop.Stats(), paused: s.gate.paused, now: s.loop.Now(), counted: s.gate.counted.copied()}
		unarmed := s.gate.docket.Unarmed()
		c.clients = countClients(unarmed)
		c.clients.Armed = s.gate.docket.Len() - len(unarmed)
	})
	if err != nil {
		return census{}, err
	}
	return c, nil
}

// countClients counts clients without a session.
func countClients(views []View) (c control.Clients) {
	for i := range views {
		switch views[i].State {
		case relationWaiting.String():
			c.Waiting++
		case relationSpared.String():
			c.Spared++
		case relationSuspended.String():
			c.Suspended++
		case relationWarranted.String():
			c.Warranted++
		}
	}
	return c
}
