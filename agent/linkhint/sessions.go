// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"math"
	"net/netip"
	"time"
)

// Sessions are those whose peers are watched: agent/peer's Loop. LinkLost and
// LinkBack are called by what Do runs.
type Sessions interface {
	Do(func())
	LinkLost(peer netip.Addr, grace time.Duration)
	LinkBack(peer netip.Addr)
}

// onPurpose is the grace of a link that somebody has set down, removed, or taken
// the route to: the session waits its whole timeout.
const onPurpose = time.Duration(math.MaxInt64)

// Tell returns a Config.OnPath that hands the changes to the sessions. grace is
// asked each time, on the sessions' own goroutine: how long a peer may be silent
// after its link was lost, and whether hints count at all.
func Tell(s Sessions, grace func() (d time.Duration, count bool)) func(Path) {
	return func(p Path) {
		s.Do(func() {
			d, count := grace()
			switch {
			case p.State == Good:
				s.LinkBack(p.Peer)
			case !count:
			case p.State == Off:
				s.LinkLost(p.Peer, onPurpose)
			default:
				s.LinkLost(p.Peer, d)
			}
		})
	}
}
