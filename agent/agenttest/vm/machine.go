// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is a virtual machine that runs one command.
type Machine struct {
	Kernel *Kernel
	// Modules are the names of those to load; what they depend on is added.
	Modules []string
	// Programs are in PATH or paths: they come to the same place in the guest,
	// with their libraries.
	Programs []string
	// Trees are files and directories that come to the same place in the guest.
	Trees []string
	// Files are paths in the guest, and what of the host comes there.
	Files map[string]string
	// Command is run as root; Env is all of its environment.
	Command, Env []string
	// Memory in MiB holds all files too.
	Memory int
	// Processors are emulated by a thread each. Two cost half as much again as one for
	// the same work, so 0 is one.
	Processors int
}

// Plan is what the guest's init is told.
type Plan struct {
	Modules      []string // paths in the guest, in the order to load them
	Command, Env []string
}

// planPath is where init finds its Plan as JSON.
const planPath = "/vm.json"

// exitMark stands before the command's exit code on the serial line.
const exitMark = "VMTEST-EXIT "

func modulePath(path string) string { return filepath.Join("/vm-modules", filepath.Base(path)) }

func (m *Machine) plan(modules []string) (string, error) {
	p := Plan{Command: m.Command, Env: m.Env}
	for _, path := range modules {
		p.Modules = append(p.Modules, modulePath(path))
	}
	text, err := json.Marshal(p)
	return string(text), err
}

// Run boots the machine and returns the exit code of its command; out gets each
// line that the guest writes. An error means that the machine did not get that
// far: what it wrote tells why.
func (m *Machine) Run(ctx context.Context, out func(line string)) (exit int, err error) {
	dir, err := os.MkdirTemp("", "pgconmgr-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	modules, err := m.Kernel.order(m.Modules)
	if err != nil {
		return 0, err
	}
	guest := filepath.Join(dir, "guest")
	const init = "github.com/pgconmgr/pgconmgr/agent/agenttest/vm/guest"
	if _, err := run(ctx, "", "env", "CGO_ENABLED=0", "go", "build", "-ldflags=-s", "-o", guest, init); err != nil {
		return 0, err
	}
	initrd := filepath.Join(dir, "initrd")
	if err := m.writeImage(ctx, initrd, guest, modules); err != nil {
		return 0, fmt.Errorf("make image: %w", err)
	}
	return m.boot(ctx, initrd, out)
}

// boot runs QEMU until the guest restarts.
func (m *Machine) boot(ctx context.Context, initrd string, out func(string)) (exit int, err error) {
	// On a busy host an emulated timer is late: the kernel's check of it at boot
	// would then do without the interrupts of the serial line.
	const options = "console=ttyS0 panic=-1 quiet no_timer_check "
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg", "-cpu", "max", "-smp", strconv.Itoa(max(m.Processors, 1)), "-m", strconv.Itoa(m.Memory),
		"-nodefaults", "-display", "none", "-no-reboot", "-net", "none", "-serial", "stdio",
		"-kernel", m.Kernel.Image, "-initrd", initrd, "-append", options+insideMark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	serial, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	exit, seen := watch(serial, out)
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("qemu: %w: %s", err, complaint.String())
	}
	if !seen {
		return 0, errors.New("the guest ended without the exit code of its command")
	}
	return exit, nil
}

// watch passes lines on until the end and returns the exit code among them. A
// panic of the guest's kernel leaves none.
func watch(serial io.Reader, out func(string)) (exit int, seen bool) {
	lines := bufio.NewScanner(serial)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if _, code, ok := strings.Cut(line, exitMark); ok {
			n, err := strconv.Atoi(strings.TrimSpace(code))
			exit, seen = n, err == nil
			continue
		}
		out(line)
	}
	return exit, seen
}
