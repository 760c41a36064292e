// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Oversleep is a yardstick: a plain thread of ordinary priority that only sleeps.
// Nobody can be more punctual than the machine lets it be.
type Oversleep struct{ longest atomic.Int64 }

// WatchOversleep sleeps again and again until ctx ends.
func WatchOversleep(ctx context.Context) *Oversleep {
	o := new(Oversleep)
	go o.run(ctx)
	return o
}

func (o *Oversleep) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const pause = 20 * time.Millisecond
	for ctx.Err() == nil {
		until := clock.Now().Add(pause)
		ts := unix.NsecToTimespec(int64(until))
		if unix.ClockNanosleep(unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME, &ts, nil) == nil {
			o.longest.Store(max(o.longest.Load(), int64(clock.Now().Sub(until))))
		}
	}
}

// Take returns by how much the thread overslept most since it was called last.
func (o *Oversleep) Take() time.Duration { return time.Duration(o.longest.Swap(0)) }
