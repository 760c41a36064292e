// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// vmEnv set to "all" says that virtual machines may take minutes: each kernel, each
// test. See make test-vm.
const vmEnv = "CM_TEST_VM"

// AllMachines reports whether this run of the tests is one of make test-vm. It is also
// true in its guests.
func AllMachines() bool { return os.Getenv(vmEnv) == "all" }

// NeedVM skips the test where virtual machines cannot run (see package vm), and
// returns the kernel that boots first. It is fetched once and kept in the module's
// cache.
func NeedVM(t testing.TB) *vm.Kernel {
	t.Helper()
	needMachine(t)
	return needKernel(t, vm.Releases[0])
}

func needMachine(t testing.TB) {
	t.Helper()
	needTier(t)
	if runtime.GOARCH != "amd64" {
		Skip(t, "the architecture amd64")
	}
	NeedTool(t, "qemu-system-x86_64")
}

func needKernel(t testing.TB, r vm.Release) *vm.Kernel {
	t.Helper()
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	k, err := vm.FetchKernel(t.Context(), filepath.Join(root, ".cache", "vm"), r)
	if err != nil {
		Skip(t, "a kernel for virtual machines: "+err.Error())
	}
	return k
}

// Guest says which tests of the package under test run in virtual machines.
type Guest struct {
	// Short is a pattern of go test -run: what each run of the package tests, on one
	// kernel; empty is nothing. All is what make test-vm tests, on all kernels, but for
	// Skip.
	Short, All, Skip string
	// Modules and Programs are added to what labs need; see vm.Machine.
	Modules, Programs []string
}

// RunInGuests runs tests of the package under test, as root and with strict skips, in
// a virtual machine of each kernel. Each comes back as a subtest with its output.
func RunInGuests(t *testing.T, g Guest) {
	t.Helper()
	needMachine(t)
	pattern, releases := g.All, vm.Releases
	if !AllMachines() {
		pattern, releases = g.Short, vm.Releases[:1]
	}
	if pattern == "" {
		t.Skip("only in make test-vm")
	}
	skip := "^" + t.Name() + "$" // which makes the guests
	if g.Skip != "" {
		skip += "|" + g.Skip
	}
	binary := MustTestProgram(t)
	for _, r := range releases {
		t.Run("Linux "+r.Series, func(t *testing.T) {
			t.Parallel() // they wait for the kernel's throttle most of the time
			m := LabGuest(needKernel(t, r))
			m.Modules = append(m.Modules, g.Modules...)
			m.Programs = append(m.Programs, g.Programs...)
			m.Files = map[string]string{"/vm/package.test": binary}
			m.Command = []string{"/vm/package.test", "-test.v", "-test.run", pattern, "-test.skip", skip}
			m.Env = append(m.Env, vmEnv+"="+os.Getenv(vmEnv))
			var out []string
			exit, err := m.Run(t.Context(), func(line string) { out = append(out, line) })
			replay(t, out, exit, err)
		})
	}
}

// LabGuest is a machine in which labs can be made.
func LabGuest(k *vm.Kernel) *vm.Machine {
	return &vm.Machine{
		Kernel: k, Memory: 512,
		Modules:  []string{"veth", "bridge", "tun", "nf_tables", "nft_objref"},
		Programs: []string{"ip", "nft"},
		Trees:    []string{"/etc/passwd", "/etc/group"},
		Env:      []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", strictEnv + "=1"},
	}
}

// MustTestProgram returns the path of a static program with the tests of the package
// under test: this one where it was built without cgo, as make test-vm does, else one
// that is built now.
func MustTestProgram(t testing.TB) string {
	t.Helper()
	if static() {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return self
	}
	path := filepath.Join(t.TempDir(), "package.test")
	if _, err := runTool(t.Context(), "", "env", "CGO_ENABLED=0", "go", "test", "-c", "-ldflags=-s", "-o", path, "."); err != nil {
		t.Fatalf("build the tests: %v", err)
	}
	return path
}

// static reports whether this program was built without cgo.
func static() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "0"})
}
