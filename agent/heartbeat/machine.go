// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Role is which end of the session a machine is.
type Role uint8

// The two ends.
const (
	Active  Role = iota // conmgr: dials, proposes the timers
	Passive             // watchdog: accepts, applies them
)

// Config is what a machine needs to know. All durations must be positive. A
// machine does not change it, so that Passive machines can share one.
type Config struct {
	Role     Role
	Interval time.Duration // heartbeat_interval
	Timeout  time.Duration // heartbeat_timeout
	// ConnectInterval is the pause after a verdict or a failed attempt before
	// the next one. Active only.
	ConnectInterval time.Duration
	// ConnectTimeout bounds one attempt, from the dial until the session is
	// armed; connecting alone gets 3 s of it. On the Passive end it bounds the
	// handshake.
	ConnectTimeout time.Duration
	// Datagram says that the transport loses frames: HELLO is repeated.
	Datagram bool

	Self        wire.ID // stable id of this daemon
	Incarnation uint64  // of this process

	// Nonce returns a fresh nonce for each attempt. Active only.
	Nonce func() wire.ID
	// Instance is the state that armed beats carry. The driver owns and changes
	// it and calls Push then. Passive only.
	Instance *wire.Instance
}

// link is where the transport of the session stands.
type link uint8

const (
	linkNone    link = iota // none; Active dials at retryAt
	linkDialing             // asked the driver to connect
	linkShaking             // connected, HELLO sent
	linkOpen                // the session has its id: beats flow
)

// sentRing is how many send times are kept to measure the round trip.
const sentRing = 4

// handshake is what only the opening of a session needs.
type handshake struct {
	nonce   wire.ID               // HELLO's, of the present attempt
	key     wire.ID               // id of the key in use, zero without one
	welcome wire.ID               // Passive: WELCOME's own nonce
	cookie  [wire.CookieSize]byte // Active on Datagram: what the watchdog asked for
	ended   bool                  // Passive: Opening.Ended
}

// dialer is what only the end that dials needs.
type dialer struct {
	previous uint64        // id of the session before: HELLO's Resumes
	retryAt  mono.Instant  // without a link: the next attempt
	dialedAt mono.Instant  // last attempt
	endedAt  mono.Instant  // last end of a session or attempt; zero for never
	helloAt  mono.Instant  // Datagram: next repetition
	peer     wire.Instance // what the watchdog told last
}

// Machine is one end of a heartbeat session. It is not safe for concurrent use.
// The zero value is not usable; see [NewActive] and [NewPassive]. A watchdog has
// thousands: what only one end or one phase needs is behind a pointer.
type Machine struct {
	cfg     *Config
	shake   *handshake // nil once a Passive end is armed
	*dialer            // nil on a Passive end

	state   wire.State
	why     wire.Reason // of the last change of state
	link    link
	acked   bool // the peer has acknowledged one of our BEATs in this session
	told    bool // Active: the instance state was heard in this session
	held    bool // the fuse held this silence once
	eager   bool
	stopped bool
	signal  wire.Flags // Active: ours; Passive: the peer's

	session uint64
	seq     uint64 // next to send
	first   uint64 // sequence of this session's first BEAT

	heardSeq   uint64 // highest sequence received in this session
	seen       uint64 // bit i: heardSeq-i was received
	heardAt    mono.Instant
	received   uint32 // frames received in this session
	lost       uint32 // gaps in the peer's sequence in this session
	lastValid  mono.Instant
	pauseGuard mono.Instant // one timeout after the last own pause
	lastAnswer mono.Instant

	deadline     mono.Instant // verdict, in armed states
	graceUntil   mono.Instant // verdict of a lost link; Never without a hint
	lateAt       mono.Instant // Up turns Late
	nextBeat     mono.Instant
	nextProbe    mono.Instant
	attemptUntil mono.Instant // Never once acked

	sent  [sentRing]uint32 // when, in microseconds, wrapped around
	stats Stats
}

// NewActive returns conmgr's end of the relation to one instance. It wants to
// dial at once.
func NewActive(cfg Config, now mono.Instant) *Machine {
	return &Machine{
		cfg: &cfg, shake: new(handshake), dialer: &dialer{retryAt: now},
		attemptUntil: mono.Never, nextProbe: mono.Never, graceUntil: mono.Never,
	}
}

// Opening is what the watchdog has decided about a session before it begins.
type Opening struct {
	Session uint64
	Key     wire.ID // id of the key in use, zero without one
	Nonce   wire.ID // the watchdog's half of what the session's keys are made of
	// Ended says that the database sessions that this client had before were ended,
	// or are being ended: it may not have heard of it.
	Ended bool
}

// NewPassive returns the watchdog's end of a session that hello asked for and
// that the caller has admitted. cfg stays the caller's and must not change.
// WELCOME and a first beat go to out.
func NewPassive(cfg *Config, o Opening, hello *wire.Frame, now mono.Instant, out *Output) *Machine {
	m := &Machine{
		cfg: cfg, state: wire.StateInit, why: wire.ReasonOpened, link: linkOpen,
		session: o.Session, seq: 1,
		shake:        &handshake{nonce: hello.Hello.Nonce, key: o.Key, welcome: o.Nonce, ended: o.Ended},
		attemptUntil: now.Add(cfg.ConnectTimeout), nextProbe: mono.Never, graceUntil: mono.Never,
	}
	m.begin(now, hello.Seq)
	m.welcome(now, out)
	m.first = m.seq
	m.nextBeat = now.Add(cfg.Interval)
	m.beat(now, wire.FlagProbe, out)
	return m
}

// Next returns when Tick wants to be called: the earliest of all timers.
func (m *Machine) Next() mono.Instant {
	if m.stopped {
		return mono.Never
	}
	next := m.attemptUntil
	switch m.link {
	case linkNone:
		if m.dialer != nil {
			next = m.retryAt
		}
	case linkShaking:
		if m.cfg.Datagram {
			next = next.Min(m.helloAt)
		}
	case linkOpen:
		next = next.Min(m.nextBeat)
	}
	switch m.state {
	case wire.StateUp:
		next = next.Min(m.lateAt).Min(m.verdictAt())
	case wire.StateLate, wire.StateSuspect:
		next = next.Min(m.verdictAt())
		if m.link == linkOpen {
			next = next.Min(m.nextProbe)
		}
	}
	return next
}

// Tick does what has become due at now. It may be called early or late.
func (m *Machine) Tick(now mono.Instant, out *Output) {
	switch {
	case m.stopped:
		return
	case Armed(m.state) && !now.Before(m.verdictAt()):
		m.expiredDeadline(now, out)
		return
	case m.link != linkNone && !now.Before(m.attemptUntil):
		m.fail(now, wire.ReasonNoAnswer, out)
		return
	case m.link == linkNone && m.dialer != nil && !now.Before(m.retryAt):
		m.dial(now, out)
		return
	}
	if m.state == wire.StateUp && !now.Before(m.lateAt) {
		m.become(now, wire.StateLate, wire.ReasonLate, out)
	}
	if m.link == linkShaking && m.cfg.Datagram && !now.Before(m.helloAt) {
		m.hello(now, out)
	}
	if m.link == linkOpen {
		m.expiredProbe(now, out)
		m.expiredBeat(now, out)
	}
}

// expiredBeat sends the beat of the absolute schedule: a beat that comes late
// does not move the ones after it, and missed ones are not made up for.
func (m *Machine) expiredBeat(now mono.Instant, out *Output) {
	if now.Before(m.nextBeat) {
		return
	}
	behind := now.Sub(m.nextBeat) % m.cfg.Interval
	m.nextBeat = now.Add(m.cfg.Interval - behind)
	var flags wire.Flags
	if m.state != wire.StateUp {
		flags = wire.FlagProbe
	}
	m.beat(now, flags, out)
}

// State returns the present state.
func (m *Machine) State() wire.State { return m.state }

// Why returns the reason of the last change of state.
func (m *Machine) Why() wire.Reason { return m.why }

// Session returns the id of the present session, 0 for none.
func (m *Machine) Session() uint64 { return m.session }

// LastValid returns when the last valid frame came, zero for never.
func (m *Machine) LastValid() mono.Instant { return m.lastValid }

// Deadline returns when the verdict falls if nothing is heard, Never when
// nobody is judged.
func (m *Machine) Deadline() mono.Instant {
	if !Armed(m.state) {
		return mono.Never
	}
	return m.verdictAt()
}

// Instance returns the instance state heard last, the zero value on a Passive end.
func (m *Machine) Instance() (i wire.Instance) {
	if m.dialer != nil {
		i = m.peer
	}
	return i
}

// Config returns what the machine goes by; it must not be changed.
func (m *Machine) Config() *Config { return m.cfg }

// Nonce returns HELLO's nonce of the present attempt; zero on a Passive end that is
// armed.
func (m *Machine) Nonce() (nonce wire.ID) {
	if m.shake != nil {
		nonce = m.shake.nonce
	}
	return nonce
}

// Signals returns what the conmgr signals: an Active end's own, a Passive end's
// as heard last.
func (m *Machine) Signals() wire.Flags { return m.signal }

// Stats returns the running figures.
func (m *Machine) Stats() Stats { return m.stats }

// SetKey sets the key id that the next HELLO names, zero for none. Active only.
func (m *Machine) SetKey(id wire.ID) { m.shake.key = id }

// SetEager makes an Active end without a session try again every interval
// instead of every ConnectInterval: each try shows whether the host's kernel
// lives. It takes effect at once: ask Next again.
func (m *Machine) SetEager(eager bool) {
	m.eager = eager
	if m.state == wire.StateDown && !m.endedAt.IsZero() {
		m.retryAt = m.endedAt.Add(m.retryAfter())
	}
}
