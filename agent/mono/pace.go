// SPDX-License-Identifier: Apache-2.0

package mono

import "time"

// Pace thins out the log lines of one cause: some in each span of time, and then how
// many there were besides. It belongs to one goroutine.
type Pace struct {
	Every time.Duration // the span, from its first line on
	Burst int           // lines in it, at least 1

	began Instant // of the present span, zero for none
	used  int     // lines in it
	kept  int     // not written since the last one that was
}

// Note reports whether to write a line now, and how many were not written since
// the one before.
func (p *Pace) Note(now Instant) (more int, ok bool) {
	if p.began.IsZero() || now.Sub(p.began) >= p.Every {
		p.began, p.used = now, 0
	}
	if p.used >= max(p.Burst, 1) {
		p.kept++
		return 0, false
	}
	p.used++
	more, p.kept = p.kept, 0
	return more, true
}
