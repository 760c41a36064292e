// SPDX-License-Identifier: Apache-2.0

package vm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// The exit code and the output of a command come back, and its clock is not ours.
func TestMachineRunsACommand(t *testing.T) {
	m := machine(t)
	m.Programs = []string{"/bin/sh", "cat", "uname", "date"}
	m.Command = []string{"/bin/sh", "-c", "cat /proc/modules; uname -r; date -s 2001-02-03; date; exit 7"}
	m.Env = []string{"PATH=/usr/bin:/bin"}
	before := time.Now()
	var lines []string
	exit, err := m.Run(t.Context(), func(line string) { lines = append(lines, line) })
	out := strings.Join(lines, "\n")
	if err != nil || exit != 7 {
		t.Fatalf("exit code %d, %v; want 7:\n%s", exit, err, out)
	}
	for _, want := range []string{m.Kernel.Version, "bridge ", "stp ", "llc ", "veth ", "Feb"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if now := time.Now(); now.Round(0).Before(before.Round(0)) {
		t.Error("the clock of this machine went back")
	}
}

// A guest without a word about its command's end is an error.
func TestMachineWithoutCommand(t *testing.T) {
	m := machine(t)
	m.Command = []string{"/missing"}
	var out strings.Builder
	exit, err := m.Run(t.Context(), func(line string) { out.WriteString(line + "\n") })
	if err != nil || exit != 255 || !strings.Contains(out.String(), "/missing") {
		t.Errorf("exit code %d, %v:\n%s", exit, err, out.String())
	}
}

func TestStepClockRefusesThisMachine(t *testing.T) {
	if err := vm.StepClock(0); err == nil {
		t.Error("the clock of this machine was set")
	}
}

func machine(t *testing.T) *vm.Machine {
	t.Helper()
	return &vm.Machine{Kernel: agenttest.NeedVM(t), Modules: []string{"veth", "bridge"}, Memory: 256}
}
