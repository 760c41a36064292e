// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process of its own: the slices of the test's threads stay what they are.
func TestShortenSlices(t *testing.T) {
	if os.Getenv("CM_TEST_SLICES") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestShortenSlices$", "-test.v")
		cmd.Env = append(os.Environ(), "CM_TEST_SLICES=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
		return
	}
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := ShortenSlices(); err != nil {
		t.Fatal(err)
	}
	done := make(chan *unix.SchedAttr)
	go func() { // on any thread, maybe a new one
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Error(err)
		}
		done <- attr
	}()
	after := <-done
	if after == nil || after.Policy != before.Policy || after.Nice != before.Nice {
		t.Fatalf("%+v, before %+v: only the slice may change", after, before)
	}
	// Kernels before 6.12 tell none.
	if before.Runtime != 0 && after.Runtime != uint64(100*time.Microsecond) {
		t.Errorf("slices of %v, want 100us", time.Duration(after.Runtime))
	}
}
