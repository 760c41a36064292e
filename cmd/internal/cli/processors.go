// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"runtime"
)

// AddProcessor lets one thread more run Go code at a time than the machine has
// processors. The heartbeat loop (agent/peer) sleeps in epoll_wait, where its thread
// counts as running until sysmon takes notice, up to 10 ms later (retake in the
// runtime's proc.go): so long a machine with two processors would tell thousands of
// applications of a fault with one. The administrator's GOMAXPROCS goes first.
func AddProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}
