// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Reasons of faults, as applications and logs see them. A verdict that follows
// a farewell under agent_silence = fault has the farewell's own reason.
const (
	faultTimeout      = "timeout"
	faultLinkDown     = "link down"
	faultPeerGaveUp   = "peer gave up"
	faultDown         = "down"
	faultRestart      = "restart"
	faultRoleChange   = "role change"
	faultStalePrimary = "stale primary"
	faultForeign      = "wrong instance"
)

// faultReasons are all of them.
var faultReasons = []string{
	faultTimeout, faultLinkDown, faultPeerGaveUp, faultDown, faultRestart, faultRoleChange, faultStalePrimary, faultForeign,
}

// become is the only place that changes what an instance is.
func (f *Fleet) become(now mono.Instant, m *member, mon Monitoring, why string, out *Actions) {
	if (m.mon == Unmonitored) != (mon == Unmonitored) {
		out.Eager = append(out.Eager, Eager{Index: m.index, On: mon == Unmonitored})
	}
	if m.mon != mon {
		m.since = now
	}
	m.mon, m.why = mon, why
	out.ViewChanged = true
}

func (f *Fleet) becomeMonitored(now mono.Instant, m *member, out *Actions) {
	was := m.mon
	m.opinion.end()
	f.become(now, m, Monitored, "", out)
	out.log(FleetInfo, "instance monitored", "instance", m.name, "from", was.String(),
		"attribute", m.state.Attribute.String(), "status", m.state.Status.String(), "timeline", m.state.Timeline)
}

// becomeUnmonitored disconnects nobody. The episode that led to it goes on.
func (f *Fleet) becomeUnmonitored(now mono.Instant, m *member, why string, out *Actions) {
	f.become(now, m, Unmonitored, why, out)
	out.log(FleetWarn, "instance unmonitored", "instance", m.name, "why", why)
}

func (f *Fleet) becomeFaulted(now mono.Instant, m *member, reason string, silence time.Duration, out *Actions) {
	was := m.mon
	m.opinion.end()
	f.fault(now, m, Fault{Reason: reason, Silence: silence}, out)
	f.become(now, m, Faulted, reason, out)
	if was != Faulted {
		out.log(FleetWarn, "instance faulted", "instance", m.name, "from", was.String(), "why", reason, "silence", silence.Round(time.Millisecond))
	}
}

func (f *Fleet) becomeForeign(now mono.Instant, m *member, why string, out *Actions) {
	known := m.mon == Foreign && m.why == why
	m.opinion.end()
	f.fault(now, m, Fault{Reason: faultForeign}, out)
	f.become(now, m, Foreign, why, out)
	if !known {
		out.log(FleetError, "wrong instance", "instance", m.name, "why", why)
	}
}

// fault tells the applications of m, if it owes them a fault. One that covers
// all of them settles the debt.
func (f *Fleet) fault(now mono.Instant, m *member, fault Fault, out *Actions) {
	if !m.bound {
		return
	}
	fault.Index, fault.At = m.index, now
	m.bound = fault.Only != nil || !fault.Before.IsZero()
	out.Faults = append(out.Faults, fault)
}

// verdict decides what the end of an armed session means for an instance that
// is in use: the table of the second opinion.
func (f *Fleet) verdict(now mono.Instant, m *member, c heartbeat.Change, out *Actions) {
	switch c.Reason {
	case wire.ReasonPeerDown: // it has ended our sessions, or is about to
		f.becomeFaulted(now, m, faultPeerGaveUp, c.Silence, out)
	case wire.ReasonStop, wire.ReasonRestart, wire.ReasonShutdown, wire.ReasonLeave:
		if f.cfg.AgentSilence == SilenceFault {
			f.becomeFaulted(now, m, c.Reason.String(), c.Silence, out)
			return
		}
		m.opinion.beginAtLeisure(now)
		f.becomeUnmonitored(now, m, "its agent said goodbye: "+c.Reason.String(), out)
	default:
		f.silence(now, m, c, out)
	}
}

// silence decides a verdict by what the door said, this very instant.
func (f *Fleet) silence(now mono.Instant, m *member, c heartbeat.Change, out *Actions) {
	reason := faultTimeout
	if c.Reason == wire.ReasonLinkDown {
		reason = faultLinkDown
	}
	o := &m.opinion
	evidence := DoorNoAnswer
	if o.answered.After(c.LastValid) {
		evidence = o.outcome
	}
	switch {
	case f.cfg.AgentSilence == SilenceFault:
		f.becomeFaulted(now, m, reason, c.Silence, out)
	case evidence == DoorAnswers:
		f.becomeUnmonitored(now, m, "its agent is silent ("+c.Reason.String()+"), the instance answers at its own port", out)
	case evidence == DoorRefused:
		f.becomeFaulted(now, m, faultDown, c.Silence, out)
	default:
		f.becomeFaulted(now, m, reason, c.Silence, out)
	}
}

// doubt opens or goes on with an episode: the armed session of an instance in
// use went late or suspect.
func (f *Fleet) doubt(now mono.Instant, m *member, c heartbeat.Change) {
	o := &m.opinion
	if c.From == wire.StateUp || c.Reason == wire.ReasonOwnPause {
		o.begin(max(now, c.LastValid.Add(f.cfg.Timeout/2)))
	}
	if c.Reason == wire.ReasonDisconnect { // the RST or FIN is a sign of its kernel
		o.lives(now)
		o.want(now)
	}
}

// answered takes the outcome of a question. A monitored instance waits with it
// for the heartbeat's verdict; an unmonitored one is judged by it.
func (f *Fleet) answered(now mono.Instant, m *member, r DoorResult, out *Actions) {
	o := &m.opinion
	life := o.life
	if !m.inUse() || !o.take(r) || m.mon != Unmonitored {
		return
	}
	switch {
	case r.Outcome == DoorRefused:
		f.becomeFaulted(now, m, faultDown, now.Sub(life), out)
	case o.hopeless():
		f.becomeFaulted(now, m, faultTimeout, now.Sub(life), out)
	}
}

// tick does what is due for one instance.
func (f *Fleet) tick(now mono.Instant, m *member, out *Actions) {
	o := &m.opinion
	if o.open && !now.Before(o.asked.Add(f.cfg.DoorTimeout)) {
		f.answered(now, m, DoorResult{Asked: o.asked, Outcome: DoorNoAnswer}, out)
	}
	if m.mon == Unmonitored && !o.silent && now.Sub(o.life) >= f.kernelTimeout() {
		o.silent = true
		if !o.open {
			o.exempt = true
			o.want(now)
		}
	}
	if !now.Before(o.due) {
		o.ask(now, f.doorPause())
		out.AskDoor = append(out.AskDoor, m.index)
	}
}

func (f *Fleet) doorPause() time.Duration {
	pause := f.cfg.DoorEvery
	if f.cfg.Random != nil {
		pause += time.Duration(jitterShare * f.cfg.Random() * float64(pause))
	}
	return pause
}
