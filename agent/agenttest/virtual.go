// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// NeedVM skips the test where virtual machines cannot run (see package vm), and
// returns the kernel to run in them. It is fetched once and kept in the module's
// cache.
func NeedVM(t testing.TB) *vm.Kernel {
	t.Helper()
	needTier(t)
	if runtime.GOARCH != "amd64" {
		Skip(t, "the architecture amd64")
	}
	NeedTool(t, "qemu-system-x86_64")
	root, err := ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k, err := vm.FetchKernel(t.Context(), filepath.Join(root, ".cache", "vm"))
	if err != nil {
		Skip(t, "a kernel for virtual machines: "+err.Error())
	}
	return k
}
