// SPDX-License-Identifier: Apache-2.0

// Package clock reads the boot-time clock for everything that is not pure.
package clock

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Now returns the present instant of CLOCK_BOOTTIME (clock_gettime(2), Linux
// 2.6.39). The clock always exists on the kernels that pgconmgr supports, so
// an error is a broken system and panics.
func Now() mono.Instant {
	// It never waits, so the scheduler is not told of it.
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("clock: CLOCK_BOOTTIME: " + errno.Error())
	}
	return mono.Instant(ts.Nano())
}

// Wall returns the wall-clock time at which instant i was or will be, judged
// by both clocks as they are now. It is for people and for comparing with
// PostgreSQL's timestamps, never for a verdict.
func Wall(i mono.Instant) time.Time { return time.Now().Add(i.Sub(Now())) }
