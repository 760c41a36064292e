// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Bounds of the missing-beat probes.
const (
	probeMin    = 5 * time.Millisecond
	probeMax    = 250 * time.Millisecond
	answerEvery = 2 * time.Millisecond
	// probeSlack is added to the round trip that the last probe leaves before
	// the deadline: scheduling on both ends, and the answers' pace.
	probeSlack = answerEvery + time.Millisecond
)

// probe asks the peer for an answer and plans the next question.
func (m *Machine) probe(now mono.Instant, out *Output) {
	m.beat(now, wire.FlagProbe, out)
	m.nextProbe = m.planProbe(now)
}

// askEvery is the pace of what wants an answer and may be lost.
func (m *Machine) askEvery() time.Duration {
	return min(max(m.cfg.Interval/8, probeMin), probeMax)
}

// planProbe returns when to ask again: an eighth of the interval later, but the
// last question leaves a round trip before the deadline. No more than a quarter
// of the timeout is left: a frame that sat in the queue of a paused end makes the
// measured round trip arbitrarily long, and that must not silence the questions.
func (m *Machine) planProbe(now mono.Instant) mono.Instant {
	next := now.Add(m.askEvery())
	last := m.verdictAt().Add(-min(m.stats.RTT, m.cfg.Timeout/4) - probeSlack)
	switch {
	case !next.After(last):
		return next
	case now.Before(last):
		return last
	}
	return mono.Never
}

func (m *Machine) expiredProbe(now mono.Instant, out *Output) {
	if m.doubtful() && !now.Before(m.nextProbe) {
		m.probe(now, out)
	}
}

// answer answers a probe at once, unless the last answer is still on its way.
func (m *Machine) answer(now mono.Instant, out *Output) {
	if !m.lastAnswer.IsZero() && now.Sub(m.lastAnswer) < answerEvery {
		return
	}
	m.lastAnswer = now
	m.beat(now, wire.FlagAnswer, out)
}

// measure takes a round trip from the acknowledgement in a beat, smoothed as in
// RFC 6298 section 2.
func (m *Machine) measure(now mono.Instant, b *wire.Beat) {
	if b.Ack+sentRing < m.seq {
		return // its send time is overwritten
	}
	rtt := time.Duration(wrapped(now)-m.sent[b.Ack%sentRing]) * time.Microsecond
	rtt -= time.Duration(b.AckDelayUS) * time.Microsecond
	rtt = max(rtt, time.Microsecond)
	if m.stats.RTT == 0 {
		m.stats.RTT = rtt
		return
	}
	m.stats.RTT += (rtt - m.stats.RTT) / 8
}
