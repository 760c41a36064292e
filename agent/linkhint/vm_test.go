// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// What this machine's kernel may not do, a stock Debian kernel does: the tests of
// the BPF sources run in a virtual machine.
func TestInVirtualMachine(t *testing.T) {
	kernel := agenttest.NeedVM(t)
	binary := filepath.Join(t.TempDir(), "linkhint.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := &vm.Machine{
		Kernel: kernel, Memory: 512,
		Modules:  []string{"tun", "veth", "bridge", "dummy", "bonding", "8021q", "nf_tables", "nft_objref"},
		Programs: []string{"ip", "nft"},
		Files:    map[string]string{"/linkhint.test": binary},
		Trees:    []string{"/etc/passwd", "/etc/group"},
		Command:  []string{"/linkhint.test", "-test.run=^TestBPF", "-test.v"},
		Env:      []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CM_TEST_STRICT=1"},
	}
	var lines []string
	exit, err := m.Run(t.Context(), func(line string) { lines = append(lines, line) })
	if err != nil || exit != 0 {
		t.Fatalf("exit code %d, %v:\n%s", exit, err, strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		if _, figure, ok := strings.Cut(line, "FIGURE "); ok {
			t.Logf("Linux %s, emulated: %s", kernel.Version, figure)
		}
	}
}
