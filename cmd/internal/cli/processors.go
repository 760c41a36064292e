// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"runtime"
)

// AddProcessors lets n threads more run Go code at a time than the machine has
// processors: one for each loop of the daemon that sleeps in epoll_wait (agent/peer,
// relays). Its thread counts as running there until sysmon takes notice, up to 10 ms
// later (retake in the runtime's proc.go): so long a machine with two processors would
// tell thousands of applications of a fault with one. The administrator's GOMAXPROCS
// goes first.
func AddProcessors(n int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	}
}
