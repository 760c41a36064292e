// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// slice is the least that the kernel takes.
const slice = 100 * time.Microsecond

// ShortenSlices asks the scheduler for short time slices for all threads of this
// process: one that wakes up runs sooner on a busy machine, and gets no more time
// for it. No right is needed. Linux 6.12 (EEVDF with slices of one's own); kernels
// before take the request and do nothing. To be called at the start: new threads
// get what the one has that makes them.
func ShortenSlices() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := shortenSlice(id); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ask for short time slices: %w", err)
		}
	}
	return nil
}

// shortenSlice leaves a thread alone that somebody has given another policy.
func shortenSlice(thread int) error {
	attr, err := unix.SchedGetAttr(thread, 0)
	if err != nil {
		return err
	}
	if attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return nil
	}
	attr.Runtime = uint64(slice)
	return unix.SchedSetAttr(thread, attr, 0)
}
