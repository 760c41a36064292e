// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// sight is when each descriptor became readable; zero for not at all.
type sight struct {
	at  []mono.Instant
	err error
}

// watch polls the descriptors until all have been readable once or ctx ends. It
// has a thread with real-time priority for itself, so that a busy machine does
// not add the observer's own delay.
func watch(ctx context.Context, fds []int) <-chan sight {
	seen := make(chan sight, 1)
	go watchOnThread(ctx, fds, seen)
	return seen
}

func watchOnThread(ctx context.Context, fds []int, seen chan<- sight) {
	runtime.LockOSThread() // never unlocked: the thread ends with its priority
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	if err != nil {
		seen <- sight{err: fmt.Errorf("real-time priority: %w", err)}
		return
	}
	at := make([]mono.Instant, len(fds))
	polls := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polls[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	}
	for left := len(fds); left > 0 && ctx.Err() == nil; {
		n, err := unix.Poll(polls, int((50 * time.Millisecond).Milliseconds()))
		now := clock.Now()
		if err != nil && err != unix.EINTR {
			seen <- sight{err: fmt.Errorf("poll: %w", err)}
			return
		}
		if n > 0 {
			left -= note(polls, at, now)
		}
	}
	seen <- sight{at: at}
}

// note keeps the instant of what is readable, and stops to poll it.
func note(polls []unix.PollFd, at []mono.Instant, now mono.Instant) (fired int) {
	for i := range polls {
		if polls[i].Fd >= 0 && polls[i].Revents != 0 {
			at[i], polls[i].Fd = now, -1
			fired++
		}
	}
	return fired
}
