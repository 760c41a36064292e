// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"strings"
	"testing"
)

// Only a whole word about the command's end counts as one.
func TestWatchFindsTheExitCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, serial, passed string
		exit                 int
		seen                 bool
	}{
		{"success", "booting\r\nhello\r\nVMTEST-EXIT 0\r\n", "booting hello", 0, true},
		{"failure behind the firmware's codes", "\x1b[2JVMTEST-EXIT 3\r\nrestarting\r\n", "restarting", 3, true},
		{"panic", "Kernel panic - not syncing\r\n", "Kernel panic - not syncing", 0, false},
		{"cut short", "VMTEST-EXIT ", "", 0, false},
		{"nothing", "", "", 0, false},
	} {
		var lines []string
		exit, seen := watch(strings.NewReader(tt.serial), func(line string) { lines = append(lines, line) })
		if got := strings.Join(lines, " "); exit != tt.exit || seen != tt.seen || got != tt.passed {
			t.Errorf("%s: exit %d, seen %t, passed on %q", tt.name, exit, seen, got)
		}
	}
}
