// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// LinkLost takes a hint of the kernel that the link to the peer is lost. An armed
// session asks at once, and ends when nothing valid is heard within grace, which
// counts for no more than the timeout; 0 believes the hint. Another hint moves
// nothing back. Neither an own pause nor the fuse is cut short by a hint.
func (m *Machine) LinkLost(now mono.Instant, grace time.Duration, out *Output) {
	if m.stopped || !Armed(m.state) || m.held {
		return
	}
	until := now.Add(min(max(grace, 0), m.cfg.Timeout))
	m.graceUntil = m.graceUntil.Min(max(until, m.pauseGuard))
	if m.why != wire.ReasonHint {
		m.become(now, wire.StateSuspect, wire.ReasonHint, out)
	}
}

// LinkBack takes the hint back: the session asks on, with its whole timeout.
func (m *Machine) LinkBack(now mono.Instant, out *Output) {
	m.graceUntil = mono.Never
	if m.state == wire.StateSuspect && m.why == wire.ReasonHint {
		m.become(now, wire.StateLate, wire.ReasonLinkUp, out)
	}
}

// verdictAt is when an armed session ends if nothing is heard.
func (m *Machine) verdictAt() mono.Instant { return m.deadline.Min(m.graceUntil) }

// expiredDeadline is the verdict of silence.
func (m *Machine) expiredDeadline(now mono.Instant, out *Output) {
	why := wire.ReasonTimeout
	if m.graceUntil != mono.Never {
		why = wire.ReasonLinkDown
	}
	m.end(now, why, CloseReset, out)
}
