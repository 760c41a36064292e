// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// dialMost bounds the part of an attempt in which the transport is made. TCP
// repeats a lost SYN after 1, 3, 7 and 15 s (RFC 6298 section 5): beginning anew
// finds a host that came back sooner than waiting for the next repetition.
const dialMost = 3 * time.Second

// dial asks the driver for a transport.
func (m *Machine) dial(now mono.Instant, out *Output) {
	m.link = linkDialing
	m.dialedAt = now
	m.attemptUntil = now.Add(min(m.cfg.ConnectTimeout, dialMost))
	out.Dial = true
	if m.state == wire.StateDown {
		m.become(now, wire.StateInit, wire.ReasonOpened, out)
	}
}

// Connected tells an Active machine that the transport it asked for stands.
func (m *Machine) Connected(now mono.Instant, out *Output) {
	if m.link != linkDialing {
		return
	}
	m.link = linkShaking
	m.attemptUntil = m.dialedAt.Add(m.cfg.ConnectTimeout)
	m.shake.nonce, m.shake.cookie = m.cfg.Nonce(), [wire.CookieSize]byte{}
	m.seq, m.heardSeq, m.received, m.lost = 1, 0, 0, 0
	m.hello(now, out)
}

// Lost tells the machine that its own kernel gave the transport up: nothing was
// acknowledged for long, or there is no route. That is silence, not a word of the
// peer, so the deadline stays what it is. The driver has closed the transport.
func (m *Machine) Lost(now mono.Instant, out *Output) {
	if m.cfg.Role == Active || !Armed(m.state) || m.stopped {
		m.Broken(now, out)
		return
	}
	m.drop(CloseNone, out)
	if m.state == wire.StateUp {
		m.become(now, wire.StateLate, wire.ReasonLate, out)
	}
}

// Broken tells the machine that the peer's kernel ended its transport without a
// BYE, or that a dial failed. The driver has closed it already.
func (m *Machine) Broken(now mono.Instant, out *Output) {
	if m.link == linkNone || m.stopped {
		return
	}
	wasOpen := m.link == linkOpen && m.acked
	m.link = linkNone
	switch {
	case m.cfg.Role == Passive || !Armed(m.state):
		m.end(now, wire.ReasonDisconnect, CloseNone, out)
	case wasOpen:
		m.drop(CloseNone, out)
		// At once, but a peer that lets us in only to hang up sets no pace.
		m.retryAt = max(now, m.dialedAt.Add(m.retryAfter()))
		if m.state == wire.StateUp {
			m.become(now, wire.StateLate, wire.ReasonDisconnect, out)
		}
	default:
		m.fail(now, wire.ReasonDisconnect, out)
	}
}

// Stop leaves on purpose: BYE if there is a session, then nothing more.
func (m *Machine) Stop(now mono.Instant, kind wire.ByeKind, out *Output) {
	if m.stopped {
		return
	}
	how := CloseReset
	if m.link == linkOpen {
		m.send(now, wire.Frame{Header: wire.Header{Type: wire.TypeBye}, Bye: wire.Bye{Kind: kind}}, out)
		how = CloseFlush
	}
	from := m.state
	m.state, m.why = wire.StateDown, kind.Reason()
	if from != wire.StateDown {
		c := m.change(now, from, wire.StateDown, m.why)
		c.Own = true
		out.Changes = append(out.Changes, c)
	}
	m.drop(how, out)
	m.stopped = true
}

// Replace ends a Passive session because a newer one of the same conmgr is
// armed. It is no verdict about the client.
func (m *Machine) Replace(now mono.Instant, out *Output) {
	if !m.stopped {
		m.end(now, wire.ReasonReplaced, CloseReset, out)
		out.Changes[len(out.Changes)-1].Own = true
	}
}

// Paused tells the machine that the driver ran late by that much: its process
// or machine stood still. More than a quarter of the timeout means that this
// silence judges nobody.
func (m *Machine) Paused(now mono.Instant, late time.Duration, out *Output) {
	if m.stopped || late <= m.cfg.Timeout/4 {
		return
	}
	if m.link != linkNone && m.attemptUntil != mono.Never {
		m.attemptUntil = now.Add(m.cfg.ConnectTimeout)
	}
	m.pauseGuard = now.Add(m.cfg.Timeout)
	if !Armed(m.state) {
		return
	}
	m.stats.Pauses++
	m.deadline = max(m.deadline, m.pauseGuard) // the fuse may have given more
	m.graceUntil = mono.Never
	m.become(now, wire.StateSuspect, wire.ReasonOwnPause, out)
}

// Signal sets the signals that every beat carries and tells a change at once.
// Active only.
func (m *Machine) Signal(now mono.Instant, signals wire.Flags, out *Output) {
	if signals &= wire.Signals; signals != m.signal {
		m.signal = signals
		m.Push(now, out)
	}
}

// Push sends a beat at once because what it carries has changed.
func (m *Machine) Push(now mono.Instant, out *Output) {
	if Armed(m.state) && m.link == linkOpen {
		m.beat(now, 0, out)
	}
}
