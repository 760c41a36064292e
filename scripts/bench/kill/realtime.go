// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// schedRR is SCHED_RR of linux/sched.h.
const schedRR = 2

// becomeRealtime starts the program anew with real-time priority, which its
// children inherit, ss among them: what else the machine does is not measured.
// It returns when that is so already, or may not be.
func becomeRealtime() (bool, error) {
	now, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return false, err
	}
	if now.Policy == schedRR {
		return true, nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedRR, Priority: 1}
	if unix.SchedSetAttr(0, want, 0) != nil {
		return false, nil
	}
	program, err := os.Executable()
	if err != nil {
		return false, err
	}
	return false, syscall.Exec(program, os.Args, os.Environ())
}
