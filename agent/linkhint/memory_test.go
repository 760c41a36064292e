// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// What loading needs, mostly the kernel's types, is given back to the system.
func TestBPFMemory(t *testing.T) {
	if !vm.Inside() {
		t.Skip("this kernel does not load the programs: see TestInVirtualMachine")
	}
	n := mustNode(t)
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak begins anew
		t.Fatal(err)
	}
	before := memory(t, "VmRSS")
	s := mustSource(t, n, Fentry)
	after, most := memory(t, "VmRSS"), memory(t, "VmHWM")
	t.Logf("%d KiB before, at most %d, %d with %v open", before, most, after, s.kind())
	// The buffers and programs are the kernel's; what is left here is code and maps.
	if kept, used := after-before, most-before; used < 4096 || kept > used/4 {
		t.Errorf("kept %d of %d KiB", kept, used)
	}
}

// memory reads a line of /proc/self/status, in KiB.
func memory(t *testing.T, name string) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return kib
}
