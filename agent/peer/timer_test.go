// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"math/rand/v2"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Timers fire when they are due, once, and in order, whatever their functions do to
// themselves and to others.
func TestTimersFireInOrder(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		l := new(Loop)
		var timers []*Timer
		want := map[*Timer]mono.Instant{} // what is set, by the test's own book
		now, last := mono.Instant(1000), mono.Instant(0)
		disturb := func() {
			tm := timers[rng.IntN(len(timers))]
			switch rng.IntN(4) {
			case 0:
				tm.Stop()
				delete(want, tm)
			default:
				at := now + 1 + mono.Instant(rng.IntN(50))
				tm.Set(at)
				want[tm] = at
			}
			if _, set := want[tm]; set != tm.Pending() {
				t.Fatalf("seed %d: pending %t, want %t", seed, tm.Pending(), set)
			}
		}
		for range 40 {
			var tm *Timer
			tm = l.NewTimer(func() {
				at, set := want[tm]
				if !set || at > now || at < last || tm.Pending() {
					t.Fatalf("seed %d: fired at %d, set %t for %d, after one for %d, pending %t", seed, now, set, at, last, tm.Pending())
				}
				last = at
				delete(want, tm)
				for range rng.IntN(4) {
					disturb()
				}
				if rng.IntN(2) == 0 {
					want[tm] = now + 1 + mono.Instant(rng.IntN(50))
					tm.Set(want[tm])
				}
			})
			timers = append(timers, tm)
		}
		for range 100 {
			for range rng.IntN(5) {
				disturb()
			}
			now, last = now+mono.Instant(rng.IntN(10)), 0
			l.expire(now)
			for tm, at := range want {
				if at <= now {
					t.Fatalf("seed %d: a timer for %d did not fire at %d (in the heap: %d)", seed, at, now, tm.index)
				}
			}
			if len(want) != len(l.timers) {
				t.Fatalf("seed %d: %d timers in the heap, want %d", seed, len(l.timers), len(want))
			}
		}
	}
}
