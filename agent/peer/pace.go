// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// paceEvery is the least time between two log lines of one cause: peers set the
// timers by which the loop's lateness and its silent sessions are weighed, so
// they could make it write a line per pass.
const paceEvery = 10 * time.Second

// pace thins out the log lines of one cause. The zero value is ready.
type pace struct {
	last mono.Instant // of the line written last, zero for none
	kept int          // not written since
}

// note reports whether to write a line now, and how many were not written since
// the one before.
func (p *pace) note(now mono.Instant) (more int, ok bool) {
	if !p.last.IsZero() && now.Sub(p.last) < paceEvery {
		p.kept++
		return 0, false
	}
	more, p.kept, p.last = p.kept, 0, now
	return more, true
}
