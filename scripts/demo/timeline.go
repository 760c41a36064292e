// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// moment is something that happened.
type moment struct {
	at     mono.Instant
	what   string
	detail string // a line of its own, such as an error's text
	note   string // behind what
	style  style
}

// timeline is what happened since the last heartbeat.
type timeline struct {
	zero    mono.Instant
	timeout time.Duration
	moments []moment
	early   []string // what happened before it could be right
}

func (t *timeline) add(m moment) { t.moments = append(t.moments, m) }

// since is the silence at an instant.
func (t *timeline) since(at mono.Instant) time.Duration { return at.Sub(t.zero) }

// verdict adds what the silence has caused, compared with the timeout: before it
// is a mistake; how much later is shown.
func (t *timeline) verdict(at mono.Instant, what, detail string) {
	m := moment{at: at, what: what, detail: detail, style: green}
	late := t.since(at) - t.timeout
	m.note = fmt.Sprintf("timeout + %s ms", millis(late))
	switch {
	case late < 0:
		m.note, m.style = fmt.Sprintf("BEFORE the timeout, by %s ms", millis(-late)), red
		t.early = append(t.early, fmt.Sprintf("%s after %s ms, before the timeout", what, millis(t.since(at))))
	case late > onTime(t.timeout):
		m.style = yellow
	}
	t.add(m)
}

// record adds a verdict as the daemon itself has recorded it, in whole milliseconds.
func (t *timeline) record(silence time.Duration, what string) {
	m := moment{at: t.zero.Add(silence), what: what, style: green}
	late := silence - t.timeout
	m.note = fmt.Sprintf("timeout + %d ms", late.Milliseconds())
	if late < 0 {
		m.note, m.style = fmt.Sprintf("BEFORE the timeout, by %d ms", -late.Milliseconds()), red
		t.early = append(t.early, what)
	}
	t.add(m)
}

// onTime is how late a verdict may be and still be called punctual.
func onTime(timeout time.Duration) time.Duration { return max(5*time.Millisecond, timeout/50) }

// show prints the moments in their order.
func (t *timeline) show(s *screen) {
	slices.SortStableFunc(t.moments, func(a, b moment) int {
		switch {
		case a.at.Before(b.at):
			return -1
		case b.at.Before(a.at):
			return 1
		}
		return 0
	})
	s.gap()
	for _, m := range t.moments {
		what := cut(m.what, 43)
		if m.note != "" {
			what = pad(what, 43)
		}
		s.printf("  %s ms  %s%s\n", s.paint(bold, fmt.Sprintf("%8s", millis(t.since(m.at)))), what, s.paint(m.style, m.note))
		if m.detail != "" {
			s.printf("  %11s  %s\n", "", s.paint(dim, cut(`"`+m.detail+`"`, width-15)))
		}
	}
}

// err is what was wrong with the timeline.
func (t *timeline) err() error {
	if len(t.early) == 0 {
		return nil
	}
	return fmt.Errorf("judged too early: %q", t.early)
}

// millis prints milliseconds with a tenth.
func millis(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1000) }
