// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Receive takes a frame that the driver has parsed (and, with keys, proven to be
// the peer's). Frames that do not belong here are counted and change nothing.
func (m *Machine) Receive(now mono.Instant, f *wire.Frame, out *Output) {
	valid := false
	if !m.stopped {
		switch f.Type {
		case wire.TypeHello:
			valid = m.onHello(now, f, out)
		case wire.TypeWelcome:
			valid = m.onWelcome(now, f, out)
		case wire.TypeCookie:
			valid = m.onCookie(now, f, out)
		case wire.TypeRefuse:
			valid = m.onRefuse(now, f, out)
		case wire.TypeBeat:
			valid = m.fresh(f) && m.onBeat(now, f, out) || m.outOfOrder(now, f, out)
		case wire.TypeBye:
			valid = m.fresh(f) && m.onBye(now, f, out)
		}
	}
	if valid {
		m.stats.Received++
	} else {
		m.stats.Invalid++
	}
}

// fresh reports whether f is of this session and newer than all before.
func (m *Machine) fresh(f *wire.Frame) bool {
	return m.link == linkOpen && f.Session == m.session && f.Seq > m.heardSeq
}

// begin starts the books of the peer's sequence with the session's first frame.
// What came before it counts as seen: nobody misses it.
func (m *Machine) begin(now mono.Instant, seq uint64) {
	m.heardSeq, m.heardAt, m.seen, m.received = seq, now, ^uint64(0), 1
}

// count keeps the books. A shift by 64 or more gives 0 in Go.
func (m *Machine) count(now mono.Instant, seq uint64) {
	step := seq - m.heardSeq
	m.lost += saturate(int64(step - 1))
	m.stats.Lost += step - 1
	m.received++
	m.seen = m.seen<<step | 1
	m.heardSeq, m.heardAt = seq, now
}

// outOfOrder takes a frame off the lost ones that came behind a newer one. It
// says nothing new, as the peer sent it before a frame that was heard already; but
// what it asks is answered, the newer one may not have asked.
func (m *Machine) outOfOrder(now mono.Instant, f *wire.Frame, out *Output) bool {
	behind := m.heardSeq - f.Seq
	if m.link != linkOpen || f.Session != m.session || f.Seq > m.heardSeq || behind >= 64 || m.seen>>behind&1 != 0 {
		return false
	}
	m.seen |= 1 << behind
	m.received++
	m.lost--
	m.stats.Lost--
	if f.Flags&wire.FlagProbe != 0 {
		m.answer(now, out)
	}
	return true
}

// onHello answers the repetition of the HELLO that made this session: the
// WELCOME was lost. The same HELLO again is no repetition: who replays it must
// not put off what arms the session.
func (m *Machine) onHello(now mono.Instant, f *wire.Frame, out *Output) bool {
	if m.cfg.Role != Passive || m.state != wire.StateInit || f.Hello.Nonce != m.shake.nonce || f.Seq <= m.heardSeq {
		return false
	}
	m.begin(now, f.Seq)
	m.welcome(now, out)
	m.first = m.seq // an acknowledgement of this WELCOME proves nothing
	m.beat(now, wire.FlagProbe, out)
	return true
}

func (m *Machine) onWelcome(now mono.Instant, f *wire.Frame, out *Output) bool {
	if m.link != linkShaking || f.Welcome.Echo != m.shake.nonce || f.Session == 0 {
		return false
	}
	if Armed(m.state) && f.Flags&wire.FlagEnded != 0 {
		m.lastValid = now
		m.end(now, wire.ReasonPeerDown, CloseReset, out)
		return true
	}
	m.link, m.session, m.first, m.told = linkOpen, f.Session, m.seq, false
	m.begin(now, f.Seq)
	m.nextBeat = now.Add(m.cfg.Interval)
	m.heard(now, out)
	if Armed(m.state) {
		m.probe(now, out)
	} else {
		m.beat(now, wire.FlagProbe, out)
	}
	return true
}

// onCookie repeats the HELLO with the cookie that proves the own address.
func (m *Machine) onCookie(now mono.Instant, f *wire.Frame, out *Output) bool {
	if m.link != linkShaking || f.Cookie.Echo != m.shake.nonce || f.Cookie.Cookie == m.shake.cookie {
		return false
	}
	m.shake.cookie = f.Cookie.Cookie
	m.hello(now, out)
	return true
}

func (m *Machine) onRefuse(now mono.Instant, f *wire.Frame, out *Output) bool {
	if f.Refuse.Code == wire.CodeSession {
		return m.onForgotten(now, f, out)
	}
	if m.link != linkShaking || f.Refuse.Echo != m.shake.nonce {
		return false
	}
	refused := f.Refuse
	out.Refused = &refused
	m.fail(now, wire.ReasonRefused, out)
	return true
}

// forgottenWithin is how many frames ago the one was sent that a REFUSE with
// CodeSession answers: more than are under way, also while probing.
const forgottenWithin = 32

// onForgotten takes the word of the watchdog's host that it has no such session:
// on datagrams nothing else tells that the agent was restarted. The keys went with
// the session, so nobody can prove it. It counts only while the watchdog is silent
// anyway, for a frame that was sent lately, and no more than a transport that
// broke: the relation dials anew and its deadline stays.
func (m *Machine) onForgotten(now mono.Instant, f *wire.Frame, out *Output) bool {
	session, seq := f.Refuse.Echoed()
	if m.cfg.Role != Active || !m.cfg.Datagram || m.link != linkOpen || !m.doubtful() ||
		session != m.session || seq >= m.seq || seq+forgottenWithin < m.seq {
		return false
	}
	m.drop(CloseReset, out)
	m.retryAt = max(now, m.dialedAt.Add(m.retryAfter()))
	return true
}

func (m *Machine) onBeat(now mono.Instant, f *wire.Frame, out *Output) bool {
	b := &f.Beat
	if b.Ack >= m.seq {
		return false // acknowledges what was never sent
	}
	m.count(now, f.Seq)
	if b.Ack > 0 {
		m.measure(now, b)
	}
	m.stats.PeerLost = b.Lost
	if b.State == wire.StateDown {
		m.onPeerDown(now, b.Reason, out)
		return true
	}
	if b.Ack >= m.first {
		m.onAcked(now, out)
	}
	m.heard(now, out)
	m.learn(f, out)
	if f.Flags&wire.FlagProbe != 0 {
		m.answer(now, out)
	}
	return true
}

// onAcked notes that beats have passed both ways in this session.
func (m *Machine) onAcked(now mono.Instant, out *Output) {
	if m.acked {
		return
	}
	m.acked, m.attemptUntil = true, mono.Never
	if m.cfg.Role == Passive {
		m.shake = nil
	}
	if m.state == wire.StateInit {
		m.become(now, wire.StateUp, wire.ReasonArmed, out)
	}
}

// onPeerDown follows the peer that gave this session up. What was never proven
// both ways, or was only replaced by a newer session, is a failed attempt.
func (m *Machine) onPeerDown(now mono.Instant, why wire.Reason, out *Output) {
	switch {
	case !Armed(m.state) || !m.acked:
		m.fail(now, wire.ReasonPeerDown, out)
	case why == wire.ReasonReplaced && m.cfg.Role == Active:
		m.drop(CloseReset, out)
		m.retryAt = now.Add(m.retryAfter())
		if m.state == wire.StateUp {
			m.become(now, wire.StateLate, wire.ReasonReplaced, out)
		}
	default:
		m.lastValid = now
		m.end(now, wire.ReasonPeerDown, CloseReset, out)
	}
}

func (m *Machine) onBye(now mono.Instant, f *wire.Frame, out *Output) bool {
	m.count(now, f.Seq)
	m.lastValid = now
	m.end(now, f.Bye.Kind.Reason(), CloseFlush, out)
	return true
}

// learn keeps what the beat carries besides: the instance state that an armed
// watchdog sends, or the conmgr's signals.
func (m *Machine) learn(f *wire.Frame, out *Output) {
	if m.cfg.Role == Passive {
		signal := f.Flags & wire.Signals
		out.Signal = out.Signal || signal != m.signal
		m.signal = signal
		return
	}
	if f.Flags&wire.FlagState == 0 {
		return
	}
	old := m.peer
	m.peer = f.Beat.Instance
	old.WAL = m.peer.WAL
	out.Instance = out.Instance || old != m.peer || !m.told
	m.told = true
}
