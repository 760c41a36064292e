// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// weighFuses holds the verdicts of a listener's silent sessions when too many of
// them would die within one interval. It is called when a verdict is due, and walks
// over the sessions only when enough of them are silent.
func (l *Loop) weighFuses(now mono.Instant) {
	for _, ln := range l.listeners {
		if heartbeat.FuseBlows(ln.armed, ln.silent) {
			ln.weighFuse(now)
		}
	}
}

// verdictDue reports whether a timer is about to give a verdict of silence.
func (t *Timer) verdictDue(now mono.Instant) bool {
	s, ok := t.fire.(*Session)
	return ok && !s.m.Deadline().After(now)
}

func (ln *Listener) weighFuse(now mono.Instant) {
	armed := 0
	var dying []*Session
	for _, s := range ln.byID {
		if heartbeat.Armed(s.m.State()) {
			armed++
		}
		if s.m.Dying(now) {
			dying = append(dying, s)
		}
	}
	if !heartbeat.FuseBlows(armed, len(dying)) {
		return
	}
	ln.loop.stats.Fuses++
	ln.loop.stats.Fused = now
	if more, ok := ln.loop.fused.Note(now); ok {
		ln.loop.log.Warn("fuse: too many sessions would end at once, holding the verdicts for one more timeout",
			"silent", len(dying), "armed", armed, "more_since_last", more)
	}
	for _, s := range dying {
		s.step(func(out *heartbeat.Output) { s.m.Hold(now, out) })
	}
}
