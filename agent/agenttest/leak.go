// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// RunWithoutLeaks runs the tests of a package for its TestMain, which exits with the
// code: tests that leave goroutines, sockets or files of /sys behind fail, and out is told
// which. A fuzzer's own goroutines are its own affair.
func RunWithoutLeaks(m *testing.M, out io.Writer) (code int) {
	goroutines, files := runtime.NumGoroutine(), leakable()
	code = m.Run()
	if fuzz := flag.Lookup("test.fuzz"); fuzz != nil && fuzz.Value.String() != "" {
		return code
	}
	if left := left(goroutines, files); code == 0 && left != "" {
		fmt.Fprintln(out, left)
		code = 1
	}
	return code
}

// leakable names the open descriptors that the runtime has none of.
func leakable() map[string]string {
	files := make(map[string]string)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "/sys/")) {
			files[e.Name()] = target
		}
	}
	return files
}

// left says what was not there before; what ends just now gets the time for it.
func left(goroutines int, files map[string]string) (what string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		what = ""
		for fd, target := range leakable() {
			if files[fd] != target {
				what += " " + fd + " " + target
			}
		}
		if what == "" && runtime.NumGoroutine() <= goroutines {
			return ""
		}
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return fmt.Sprintf("left open:%s; %d goroutines, %d before:\n%s", what, runtime.NumGoroutine(), goroutines, stacks)
}
