// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// factWakeup names the row of the yardstick.
const factWakeup = "machine's share: a plain thread wakes up from a sleep"

// yardstick sleeps again and again on a plain thread of ordinary priority, until
// ctx ends, and delivers how late it woke up: nobody can be more punctual than
// the machine lets them.
func yardstick(ctx context.Context) <-chan []time.Duration {
	lates := make(chan []time.Duration, 1)
	go yardstickOnThread(ctx, lates)
	return lates
}

func yardstickOnThread(ctx context.Context, lates chan<- []time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const pause = 20 * time.Millisecond
	var all []time.Duration
	for ctx.Err() == nil {
		until := clock.Now().Add(pause)
		ts := unix.NsecToTimespec(int64(until))
		if unix.ClockNanosleep(unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME, &ts, nil) == nil {
			all = append(all, clock.Now().Sub(until))
		}
	}
	lates <- all
}
