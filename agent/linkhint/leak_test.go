// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when a Watcher leaves goroutines or descriptors.
func TestMain(m *testing.M) {
	goroutines, files := runtime.NumGoroutine(), openFiles()
	code := m.Run()
	if left := left(goroutines, files); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, left)
		code = 1
	}
	os.Exit(code)
}

// openFiles names what a Watcher opens and the runtime does not.
func openFiles() map[string]string {
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

func left(goroutines int, files map[string]string) (what string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		what = ""
		for fd, target := range openFiles() {
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
