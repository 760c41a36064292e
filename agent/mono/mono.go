// SPDX-License-Identifier: Apache-2.0

// Package mono has the one time that heartbeats are judged by: an instant on
// the boot-time clock (CLOCK_BOOTTIME), which never steps and goes on while
// the machine sleeps. It is a type of its own, so that mixing it with the wall
// clock does not compile. The package reads no clock; see agent/mono/clock.
package mono

import (
	"math"
	"time"
)

// Instant is a number of nanoseconds since the machine booted. The zero value
// means "not set". Instants of two boots must not be compared.
type Instant int64

// Never is after every instant: a timer set to it does not fire.
const Never Instant = math.MaxInt64

// Add returns the instant d later; Never stays Never.
func (i Instant) Add(d time.Duration) Instant {
	if i == Never {
		return Never
	}
	return i + Instant(d)
}

// Sub returns how long before i the instant j was.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before reports whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i < j }

// After reports whether i is later than j.
func (i Instant) After(j Instant) bool { return i > j }

// IsZero reports whether i was never set.
func (i Instant) IsZero() bool { return i == 0 }

// Min returns the earlier of i and j.
func (i Instant) Min(j Instant) Instant { return min(i, j) }
