// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// fuseLeast is the fewest sessions that blow the fuse.
const fuseLeast = 3

// FuseBlows reports whether so many sessions of all armed ones would die within
// one interval that the cause is more likely here than at every one of them:
// at least half, and at least three.
func FuseBlows(armed, dying int) bool {
	return dying >= fuseLeast && 2*dying >= armed
}

// Dying reports whether the session is silent and its verdict is due within one
// interval of now, and the fuse has not held it yet.
func (m *Machine) Dying(now mono.Instant) bool {
	return m.doubtful() && !m.held && !m.verdictAt().After(now.Add(m.cfg.Interval))
}

// Hold gives a silent session one more timeout, once per silence, because the
// fuse blew.
func (m *Machine) Hold(now mono.Instant, out *Output) {
	if m.held || !m.doubtful() {
		return
	}
	m.held = true
	m.stats.Holds++
	m.deadline, m.graceUntil = m.verdictAt().Add(m.cfg.Timeout), mono.Never
	m.become(now, wire.StateSuspect, wire.ReasonFuse, out)
}

// Held reports whether the verdict of the present silence is held.
func (m *Machine) Held() bool { return m.held && m.doubtful() }
