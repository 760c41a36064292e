// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"slices"
	"time"
)

// Releasing closes sockets and wakes goroutines, up to two for each application.
// Thousands at once would keep the applications that are to read their error, the
// heartbeat's loop and the notice of another fault waiting for a processor, so it
// begins a moment later and goes on little by little: nobody waits for it.
const (
	releaseDelay = 50 * time.Millisecond
	releaseBatch = 32
	releasePause = 4 * time.Millisecond
)

// releaseLoop releases what was told, until ctx ends.
func (a *Apps) releaseLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.told.ready:
		}
		pause := releaseDelay
		for batch := range slices.Chunk(slices.Concat(a.told.take()...), releaseBatch) {
			if !a.server.crowded() && !sleep(ctx, pause) {
				return
			}
			pause = releasePause
			for _, h := range batch {
				h.release()
			}
		}
	}
}

// sleep reports false when ctx ended it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
