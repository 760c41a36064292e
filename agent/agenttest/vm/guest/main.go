// SPDX-License-Identifier: Apache-2.0

// Command guest is the first process of a virtual machine of package vm: it makes
// the usual mounts, sets lo up, loads modules, runs one command and restarts the machine,
// which ends it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

func main() {
	console := io.Discard
	_ = unix.Mount("dev", "/dev", "devtmpfs", 0, "")
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		console = f
	}
	code, err := run(console)
	if err != nil {
		fmt.Fprintf(console, "guest: %v\n", err)
	}
	fmt.Fprintf(console, "VMTEST-EXIT %d\n", code)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// run returns the exit code of the command, 255 when it was not started.
func run(console io.Writer) (code int, err error) {
	if err := errors.Join(mountAll(), unix.Sethostname([]byte("guest")), loopbackUp()); err != nil {
		return 255, err
	}
	plan, err := readPlan()
	if err != nil {
		return 255, err
	}
	for _, path := range plan.Modules {
		if err := load(path); err != nil {
			return 255, err
		}
	}
	cmd := exec.Command(plan.Command[0], plan.Command[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = plan.Env, console, console
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 255, err
	}
	return 0, nil
}

func mountAll() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
		{"cgroup2", "/sys/fs/cgroup"}, {"tmpfs", "/dev/shm"}, {"devpts", "/dev/pts"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// loopbackUp makes lo as it is on every machine.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

func readPlan() (p vm.Plan, err error) {
	text, err := os.ReadFile("/vm.json")
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("plan: %w", err)
	}
	if len(p.Command) == 0 {
		return p, errors.New("plan: no command")
	}
	return p, nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
	}
	return nil
}
