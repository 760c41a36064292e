// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// place is how an instance stands under the split rule.
type place uint8

const (
	placeGood  place = iota // not a primary, or the one to use
	placeTied               // a primary that cannot be told from another one
	placeStale              // a primary that another one has overtaken
)

// standing is the outcome of the split rule for one instance.
type standing struct {
	place    place
	lossText string // why not placeGood
}

// splitState is what the split rule remembers. Among the primaries in use
//
//   - the higher timeline wins. A timeline once seen on a primary stays the
//     measure as long as conmgr runs: when the promoted instance dies, the one
//     that it replaced does not become the primary again, because what was
//     written after the promotion is missing there;
//   - on equal timelines the incumbent wins, who was alone before. Who is
//     alone only because the others had no time to report yet is none;
//   - else none wins, and the error names all of them. Nobody is disconnected:
//     it is not known who is wrong.
type splitState struct {
	top       uint32 // highest timeline of a primary so far
	topName   string // who had it
	incumbent int    // index of the latest primary that was alone; -1 for none
	settled   bool   // the time to report is over
	text      string // View.Split
}

// decideSplit applies the rule.
func (f *Fleet) decideSplit(now mono.Instant, out *Actions) {
	s := &f.split
	s.settled = s.settled || !now.Before(f.settled) || f.allReported()
	var best []*member
	for i := range f.members {
		if m := &f.members[i]; m.claims() && m.state.Timeline > s.top {
			s.top, s.topName = m.state.Timeline, m.name
		}
	}
	for i := range f.members {
		if m := &f.members[i]; m.claims() && m.state.Timeline == s.top {
			best = append(best, m)
		}
	}
	winner := f.winner(best)
	if s.settled && winner >= 0 {
		s.incumbent = winner
	}
	for i := range f.members {
		f.place(now, &f.members[i], winner, out)
	}
	f.tie(best, winner, out)
}

// claims reports whether m takes part: a primary in use.
func (m *member) claims() bool {
	return m.inUse() && m.state.Attribute == wire.AttributePrimary
}

func (f *Fleet) allReported() bool {
	for i := range f.members {
		if f.members[i].mon == Unknown {
			return false
		}
	}
	return true
}

// winner returns the index of the primary to use among those of the highest
// timeline, -1 for none.
func (f *Fleet) winner(best []*member) int {
	if len(best) == 1 {
		return best[0].index
	}
	for _, m := range best {
		if m.index == f.split.incumbent {
			return m.index
		}
	}
	return -1
}

func (f *Fleet) place(now mono.Instant, m *member, winner int, out *Actions) {
	before := m.place
	switch {
	case !m.claims() || m.index == winner:
		m.standing = standing{}
	case m.state.Timeline < f.split.top:
		m.standing = standing{placeStale, fmt.Sprintf("stale primary on timeline %d: %s has had timeline %d",
			m.state.Timeline, f.split.topName, f.split.top)}
	case winner < 0:
		m.standing = standing{placeTied, fmt.Sprintf("one of several primaries on timeline %d", f.split.top)}
	default:
		m.standing = standing{placeStale, fmt.Sprintf("stale primary: %s was primary on timeline %d before",
			f.members[winner].name, f.split.top)}
	}
	if m.place != before {
		out.ViewChanged = true
	}
	if m.place == placeStale && before != placeStale {
		f.closeStale(now, m, out)
	}
}

// closeStale ends the sessions of a primary that was overtaken. One whose
// timeline is not known is not used, but that kills nobody.
func (f *Fleet) closeStale(now mono.Instant, m *member, out *Actions) {
	out.log(FleetError, "stale primary", "instance", m.name, "why", m.lossText)
	if f.cfg.CloseOnStalePrimary && m.state.Timeline != 0 {
		f.fault(now, m, Fault{Reason: faultStalePrimary}, out)
	}
}

// tie names the primaries of which none wins.
func (f *Fleet) tie(best []*member, winner int, out *Actions) {
	text := ""
	if len(best) > 1 && winner < 0 {
		names := make([]string, len(best))
		for i, m := range best {
			names[i] = m.name
		}
		text = fmt.Sprintf("%s are primaries on timeline %d: none of them is used",
			strings.Join(names, " and "), f.split.top)
	}
	if text == f.split.text {
		return
	}
	f.split.text, out.ViewChanged = text, true
	if text != "" {
		out.log(FleetError, "several primaries", "why", text)
	}
}
