// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"runtime"
)

// AddProcessors lets n threads more run Go code at a time than the machine has
// processors: one for the loop of the heartbeats (agent/peer), so that it finds one
// free when all others are busy, and one for each loop of relays, which keeps its own
// while it waits for a moment: so long a machine with two processors would tell
// thousands of applications of a fault with one. The administrator's GOMAXPROCS goes
// first.
func AddProcessors(n int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	}
}
