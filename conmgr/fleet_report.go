// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// report takes a state that the agent of m sent.
func (f *Fleet) report(now mono.Instant, m *member, s wire.Instance, out *Actions) {
	if s.Status == wire.StatusUnknown {
		f.ignorant(now, m, s, out)
		return
	}
	old, resumed := m.state, m.resumed
	m.state, m.fresh, m.resumed = s, true, false
	if s.StartUS == 0 {
		m.state.StartUS = old.StartUS // not known is not another life
	}
	if why := f.foreign(m, s); why != "" {
		f.becomeForeign(now, m, why, out)
		return
	}
	if s.Status == wire.StatusDown {
		f.becomeFaulted(now, m, faultDown, 0, out)
		return
	}
	if m.inUse() {
		f.faultOldLife(now, m, old, resumed, out)
		f.faultOldRole(now, m, old, out)
	}
	f.admit(now, m, out)
}

// ignorant takes a state of an agent that has not seen its instance yet. What
// was known before stays for routing, but nobody vouches for it.
func (f *Fleet) ignorant(now mono.Instant, m *member, s wire.Instance, out *Actions) {
	m.fresh = false
	m.state.Paused, m.state.DryRun = s.Paused, s.DryRun
	if m.mon == Monitored {
		m.opinion.beginAtLeisure(now)
		f.becomeUnmonitored(now, m, "its agent cannot tell the state of the instance", out)
	}
}

// admit makes m monitored when its session is armed and vouches for it.
func (f *Fleet) admit(now mono.Instant, m *member, out *Actions) {
	if !heartbeat.Armed(m.session) || !m.fresh || m.mon == Monitored {
		return
	}
	usable := m.state.Status == wire.StatusUp ||
		m.state.Status == wire.StatusUnresponsive && m.mon != Faulted
	if usable && f.foreign(m, m.state) == "" {
		f.becomeMonitored(now, m, out)
	}
}

// foreign says why s is not of the instance that is configured, empty when
// nothing speaks against it. What was foreign must prove itself: a value that
// is not known does not do.
func (f *Fleet) foreign(m *member, s wire.Instance) string {
	prove := m.mon == Foreign
	if f.id != 0 && s.SystemID != f.id && (s.SystemID != 0 || prove) {
		return fmt.Sprintf("its system identifier is %s, expected %s", decimal(s.SystemID), decimal(f.id))
	}
	if s.Port != m.Port && (s.Port != 0 || prove) {
		return fmt.Sprintf("its agent watches an instance on port %d, backend_port%d is %d", s.Port, m.Number, m.Port)
	}
	return ""
}

// faultOldLife tells the applications of a postmaster that is no more. After a
// gap without session only those bound before the gap: the others may be bound
// to the new postmaster, and the old one's end reached them by itself.
func (f *Fleet) faultOldLife(now mono.Instant, m *member, old wire.Instance, resumed bool, out *Actions) {
	if old.StartUS == 0 || m.state.StartUS == old.StartUS {
		return
	}
	fault := Fault{Reason: faultRestart}
	if resumed {
		fault.Before = m.lost
	}
	f.fault(now, m, fault, out)
	out.log(FleetWarn, "instance restarted", "instance", m.name)
}

// faultOldRole tells the applications whose target the instance no longer
// serves after a change of role. These are libpq's checks: standby asks for
// "in recovery", read-only for a session that is read-only by default, and both
// can end with a promotion; primary and read-write end with a demotion.
// prefer-standby and any are content with either role.
func (f *Fleet) faultOldRole(now mono.Instant, m *member, old wire.Instance, out *Actions) {
	from, to := old.Attribute, m.state.Attribute
	if from == to || from == wire.AttributeUnknown || to == wire.AttributeUnknown {
		return
	}
	out.log(FleetInfo, "instance changed role", "instance", m.name, "from", from.String(), "to", to.String(),
		"timeline", m.state.Timeline)
	if !f.cfg.CloseOnRoleChange {
		return
	}
	only := []Target{Primary, ReadWrite}
	if to == wire.AttributePrimary {
		only = []Target{Standby}
		if !m.state.ReadOnly {
			only = append(only, ReadOnly)
		}
	}
	f.fault(now, m, Fault{Reason: faultRoleChange, Only: only}, out)
}

// learn takes the system identifier from the first armed primary, and looks at
// all others with it. A standby alone does not teach: it may be the stray one.
func (f *Fleet) learn(now mono.Instant, out *Actions) {
	if f.id != 0 {
		return
	}
	for i := range f.members {
		m := &f.members[i]
		if m.mon == Monitored && m.state.Attribute == wire.AttributePrimary && m.state.SystemID != 0 {
			f.id, out.Learned = m.state.SystemID, m.state.SystemID
			out.log(FleetInfo, "system identifier learned", "instance", m.name, "system_identifier", decimal(f.id))
			break
		}
	}
	for i := range f.members {
		m := &f.members[i]
		if why := f.foreign(m, m.state); f.id != 0 && m.mon != Foreign && why != "" {
			f.becomeForeign(now, m, why, out)
		}
	}
}
