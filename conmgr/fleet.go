// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// SilencePolicy is agent_silence: what an agent's silence means.
type SilencePolicy uint8

// Values of agent_silence.
const (
	SilenceTolerate SilencePolicy = iota // ask the instance's own door first
	SilenceFault                         // a fault, as in the seed
)

// FleetBackend is one configured instance.
type FleetBackend struct {
	Number         int    // N of backend_hostN
	Host, HostAddr string // one of them may be empty
	Port           uint16 // backend_portN
	WatchdogPort   uint16 // watchdog_portN
}

// FleetConfig is what a Fleet goes by. It is not changed after NewFleet.
type FleetConfig struct {
	Interval, Timeout   time.Duration // heartbeat_interval, heartbeat_timeout
	AgentSilence        SilencePolicy
	CloseOnRoleChange   bool
	CloseOnStalePrimary bool
	SystemID            uint64 // pinned; 0: learn it from the first armed primary
	Backends            []FleetBackend
	// DoorEvery is the least time between two questions at one door, but for
	// the first of an episode. 0 means 5 s.
	DoorEvery time.Duration
	// DoorTimeout is how long a door may take to answer; the driver gives
	// Door the same limit. 0 means 2 s, as watchdog.accept_timeout.
	DoorTimeout time.Duration
	// Settle is how long after the start nobody is the incumbent yet, unless all
	// have reported before. 0 means Timeout.
	Settle time.Duration
	// Random returns a number in [0,1) for the jitter; nil means none.
	Random func() float64
}

// Fleet decides what each instance is. It is pure: no goroutine, socket, clock
// or logger; the caller serialises the calls and carries out the Actions.
//
//	            armed, state known                  door answers at the verdict,
//	Unknown ----------------------> Monitored ---------------------> Unmonitored
//	   |                            ^  ^   |    BYE of the agent,          |
//	   | agent       armed, state   |  |   |    state not known            |
//	   | says down   known, up      |  |   |                               |
//	   |         +------------------+  |   |  armed, state known           |
//	   v         |                     +---|-------------------------------+
//	Faulted -----+                         |                               |
//	   ^   ^  FAULT: timeout, down,        |      FAULT: door refused,     |
//	   |   +--peer gave up, link down------+      door and kernel silent   |
//	   +-------------------------------------------------------------------+
//
//	any --------------------------> Foreign ----------------------> as Unknown
//	      wrong system identifier             reports the right
//	      or port (FAULT if in use)           ones again
//
// Besides, without a change of state: a restarted postmaster, a change of role
// and a lost split (fleet_split.go) fault the applications they concern.
//
// # Rules
//
//   - Only what may be in use is faulted: an instance owes its applications one
//     fault from the moment it is routable until that fault, never two.
//   - The heartbeat's verdict is decided the instant it falls. A door answer
//     counts when it was asked for after the last valid frame.
//   - The state of a new session counts, not the one of the session before:
//     call Instance once after each arming, even when nothing differs.
//   - An armed agent that cannot tell its instance's state (StatusUnknown) is
//     as good as none: unmonitored.
//   - An own pause accuses nobody: a call later than Next by more than a quarter
//     of the timeout restarts what unmonitored instances are judged by.
//   - A flip of default_transaction_read_only ends nothing, as any session may
//     have overridden it; only routing follows.
//   - Unmonitored, host alive: two doors in a row without answer are a fault (a
//     slow fork is no death); host silent too: one.
type Fleet struct {
	cfg     FleetConfig
	id      uint64 // system identifier, 0 while not known
	members []member
	viewed  mono.Instant // At of the latest view
	settled mono.Instant // from here on, who is alone is the incumbent
	split   splitState
}

// member is one instance.
type member struct {
	FleetBackend
	index   int
	name    string
	addr    netip.Addr
	mon     Monitoring
	since   mono.Instant
	why     string
	trouble string // why no session comes about; empty while one is armed
	session wire.State
	reason  wire.Reason
	state   wire.Instance // the latest whose status was known, Paused and DryRun aside
	fresh   bool          // state is of the present session and known
	resumed bool          // the session ended since the latest state
	lost    mono.Instant  // last valid frame of the session that ended
	bound   bool          // applications may be bound to it: a fault is owed
	standing
	opinion opinion

	figures Figures
}

// NewFleet returns a fleet of instances never heard of. learnedSystemID is the
// identifier kept from an earlier run, 0 for none; a pinned one beats it.
func NewFleet(cfg FleetConfig, learnedSystemID uint64, now mono.Instant) *Fleet {
	if cfg.DoorEvery == 0 {
		cfg.DoorEvery = 5 * time.Second
	}
	if cfg.DoorTimeout == 0 {
		cfg.DoorTimeout = 2 * time.Second
	}
	if cfg.Settle == 0 {
		cfg.Settle = cfg.Timeout
	}
	f := &Fleet{cfg: cfg, id: cfg.SystemID, settled: now.Add(cfg.Settle)}
	if f.id == 0 {
		f.id = learnedSystemID
	}
	f.split.incumbent = -1
	for i, b := range cfg.Backends {
		m := member{FleetBackend: b, index: i, since: now, why: "never heard of"}
		v := InstanceView{Number: b.Number, Host: b.Host, HostAddr: b.HostAddr, Port: b.Port}
		m.name = v.Name()
		m.opinion.end()
		f.members = append(f.members, m)
	}
	return f
}

// Changed takes a change of state of the heartbeat session of instance i.
func (f *Fleet) Changed(now mono.Instant, i int, c heartbeat.Change, out *Actions) {
	m := f.enter(now, i)
	m.session, m.reason = c.To, c.Reason
	out.ViewChanged = true
	switch {
	case c.Verdict():
		m.fresh, m.resumed, m.lost = false, true, c.LastValid
		if m.inUse() {
			f.verdict(now, m, c, out)
		}
	case c.To == wire.StateUp:
		m.trouble = ""
		if m.mon == Monitored {
			m.opinion.end()
		}
		f.admit(now, m, out)
	case heartbeat.Armed(c.To) && m.inUse():
		f.doubt(now, m, c)
	}
	f.settle(now, out)
}

// Instance takes the instance state that the agent of instance i reported. In
// one pass of the driver it may come before or after Changed.
func (f *Fleet) Instance(now mono.Instant, i int, s wire.Instance, out *Actions) {
	m := f.enter(now, i)
	out.ViewChanged = true
	f.report(now, m, s, out)
	f.settle(now, out)
}

// Figures are what the heartbeat session of an instance measures.
type Figures struct {
	RTT            time.Duration // smoothed round trip
	Heard          mono.Instant  // last valid frame
	Lost, Received uint64        // frames that never came and that came
	WAL            uint64        // position last heard; it moves without a report
}

// figuresEvery is how often new figures alone make a new view.
const figuresEvery = 100 * time.Millisecond

// Heard takes the figures of the heartbeat session of instance i. It is cheap,
// to be called for every beat; the view follows ten times a second.
func (f *Fleet) Heard(now mono.Instant, i int, g Figures, out *Actions) {
	m := &f.members[i]
	m.figures = g
	if m.fresh {
		m.state.WAL = g.WAL
	}
	f.alive(m, g.Heard)
	if now.Sub(f.viewed) >= figuresEvery {
		out.ViewChanged = true
	}
}

// KernelLife takes a sign of life of the kernel of the host of instance i, seen
// at the instant at: an acknowledgement, a SYN-ACK, a RST, a refusal.
func (f *Fleet) KernelLife(now mono.Instant, i int, at mono.Instant, out *Actions) {
	f.alive(f.enter(now, i), at)
	f.settle(now, out)
}

func (f *Fleet) alive(m *member, at mono.Instant) {
	if at.After(m.opinion.life) {
		m.opinion.lives(at)
		m.opinion.silent = false
	}
}

// Door takes the outcome of a question that Actions.AskDoor asked for; r.Asked
// is the now of the call that asked, or when the driver began, if later.
func (f *Fleet) Door(now mono.Instant, i int, r DoorResult, out *Actions) {
	f.answered(now, f.enter(now, i), r, out)
	f.settle(now, out)
}

// Trouble takes why an attempt to reach the agent of instance i failed, for
// people to read.
func (f *Fleet) Trouble(i int, why string, out *Actions) {
	m := &f.members[i]
	out.ViewChanged = out.ViewChanged || m.trouble != why
	m.trouble = why
}

// Addr takes the address that instance i has now.
func (f *Fleet) Addr(i int, addr netip.Addr, out *Actions) {
	m := &f.members[i]
	out.ViewChanged = out.ViewChanged || m.addr != addr
	m.addr = addr
}

// Tick does what time alone asks for. Call it at Next or later.
func (f *Fleet) Tick(now mono.Instant, out *Actions) {
	f.forgive(now)
	f.settle(now, out)
}

// Next returns when Tick wants to be called, Never for not at all. It may
// change with every call but Heard and Addr.
func (f *Fleet) Next() mono.Instant {
	next := mono.Never
	if !f.split.settled {
		next = f.settled
	}
	for i := range f.members {
		next = next.Min(f.nextOf(&f.members[i]))
	}
	return next
}

func (f *Fleet) nextOf(m *member) mono.Instant {
	next := m.opinion.next(f.cfg.DoorTimeout)
	if m.mon == Unmonitored && !m.opinion.silent {
		next = next.Min(m.opinion.life.Add(f.kernelTimeout()))
	}
	return next
}

// SystemID returns the system identifier all instances must have, 0 while it is
// neither pinned nor learned.
func (f *Fleet) SystemID() uint64 { return f.id }

// inUse reports whether the instance serves, or did until this call.
func (m *member) inUse() bool { return m.mon == Monitored || m.mon == Unmonitored }

// kernelTimeout is how long the host of an unmonitored instance may be silent:
// the heartbeat's timeout, but never so short that redials at the interval
// cannot fill it.
func (f *Fleet) kernelTimeout() time.Duration {
	return max(f.cfg.Timeout, f.cfg.Interval+f.cfg.Interval/4)
}

// enter begins a call that concerns instance i.
func (f *Fleet) enter(now mono.Instant, i int) *member {
	f.forgive(now)
	return &f.members[i]
}

// forgive restarts the clocks of unmonitored instances when this call is so
// late that the own process must have stood still.
func (f *Fleet) forgive(now mono.Instant) {
	if now.Sub(f.Next()) <= f.cfg.Timeout/4 {
		return
	}
	for i := range f.members {
		if f.members[i].mon == Unmonitored {
			f.members[i].opinion.forgive(now)
		}
	}
}

// settle ends every call: what is due is done, then who may be used is decided
// over all instances.
func (f *Fleet) settle(now mono.Instant, out *Actions) {
	for i := range f.members {
		f.tick(now, &f.members[i], out)
	}
	f.learn(now, out)
	f.decideSplit(now, out)
	for i := range f.members {
		m := &f.members[i]
		m.bound = m.bound || m.inUse() && m.place == placeGood
	}
}

// decimal writes a system identifier as pg_controldata does: in decimal.
func decimal(id uint64) string { return strconv.FormatUint(id, 10) }
