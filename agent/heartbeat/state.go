// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// become is the only place that changes the state. Entering a state other than
// Down tells the peer at once; entering a doubtful one asks it for an answer.
func (m *Machine) become(now mono.Instant, to wire.State, why wire.Reason, out *Output) {
	from := m.state
	m.state, m.why = to, why
	if from != to {
		out.Changes = append(out.Changes, m.change(now, from, to, why))
	}
	switch to {
	case wire.StateUp:
		m.nextProbe = mono.Never
		m.beat(now, 0, out)
	case wire.StateLate, wire.StateSuspect:
		m.probe(now, out)
	}
}

func (m *Machine) change(now mono.Instant, from, to wire.State, why wire.Reason) Change {
	c := Change{At: now, From: from, To: to, Reason: why, LastValid: m.lastValid, OwnPause: m.pausedLately(now)}
	if !m.lastValid.IsZero() {
		c.Silence = now.Sub(m.lastValid)
	}
	return c
}

// pausedLately reports whether this end stood still within the last timeout, or
// has heard nothing since it did.
func (m *Machine) pausedLately(now mono.Instant) bool {
	return now.Before(m.pauseGuard) || m.pauseGuard.After(m.lastValid.Add(m.cfg.Timeout))
}

// heard takes note of a valid frame: the deadline moves, and doubt ends once the
// session is proven both ways.
func (m *Machine) heard(now mono.Instant, out *Output) {
	if m.doubtful() && m.acked {
		m.become(now, wire.StateUp, wire.ReasonHeard, out)
	}
	m.held = false
	m.lastValid = now
	m.deadline, m.graceUntil = now.Add(m.cfg.Timeout), mono.Never
	m.lateAt = now.Add(lateAfter(m.cfg.Interval, m.cfg.Timeout))
}

// doubtful reports whether the session is armed and silent.
func (m *Machine) doubtful() bool {
	return m.state == wire.StateLate || m.state == wire.StateSuspect
}

// lateAfter is how long a silence makes an Up session Late: 1.25 intervals, but
// never more than 5/8 of the timeout, so that a timeout of less than two
// intervals leaves time to ask.
func lateAfter(interval, timeout time.Duration) time.Duration {
	return min(interval+interval/4, timeout/8*5)
}

// end leaves the session for good: by a verdict from an armed state, without
// one from the others. CloseReset tells the peer while the link still stands;
// CloseFlush is for a peer that leaves by itself.
func (m *Machine) end(now mono.Instant, why wire.Reason, how Close, out *Output) {
	from := m.state
	m.state, m.why = wire.StateDown, why
	if m.link == linkOpen && how == CloseReset {
		m.beat(now, 0, out)
	}
	out.Changes = append(out.Changes, m.change(now, from, wire.StateDown, why))
	m.drop(how, out)
	if m.cfg.Role == Passive {
		m.stopped = true
		return
	}
	m.endedAt = now
	m.retryAt = now.Add(m.retryAfter())
}

// drop lets go of the link.
func (m *Machine) drop(how Close, out *Output) {
	if m.link != linkNone && how != CloseNone {
		out.Close = how
	}
	if m.acked && m.dialer != nil {
		m.previous = m.session
	}
	m.link, m.session, m.acked = linkNone, 0, false
	m.attemptUntil = mono.Never
}

// retryAfter is the pause before the next attempt. An armed relation whose
// transport broke is in a hurry: its deadline is near.
func (m *Machine) retryAfter() time.Duration {
	if m.eager || Armed(m.state) {
		return min(m.cfg.ConnectInterval, m.cfg.Interval)
	}
	return m.cfg.ConnectInterval
}

// fail ends an attempt that led to no armed session. A relation that is armed
// stays so until its deadline.
func (m *Machine) fail(now mono.Instant, why wire.Reason, out *Output) {
	if m.cfg.Role == Passive || !Armed(m.state) {
		m.end(now, why, CloseReset, out)
		return
	}
	m.drop(CloseReset, out)
	m.retryAt = now.Add(m.retryAfter())
}
