// SPDX-License-Identifier: Apache-2.0

// Package machine describes what a benchmark ran on: figures mean nothing
// without it.
package machine

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are part of every benchmark's JSON. Embed them.
type Facts struct {
	Commit string `json:"commit"`
	Kernel string `json:"kernel"`
	Cores  int    `json:"cores"`
	// Load is the load average of the last minute when the run began: what else
	// the machine had to do.
	Load string `json:"load_before"`
}

// Look returns the facts of now. What cannot be found out is "unknown".
func Look(ctx context.Context) Facts {
	f := Facts{Commit: commit(ctx), Kernel: "unknown", Cores: runtime.NumCPU(), Load: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		f.Load, _, _ = strings.Cut(string(text), " ")
	}
	return f
}

// commit is that of the working directory, with a mark when files differ.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
