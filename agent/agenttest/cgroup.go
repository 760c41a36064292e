// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot finds where the cgroup2 hierarchy is mounted: /sys/fs/cgroup, or
// /sys/fs/cgroup/unified where version 1 controllers are in use as well.
func cgroupRoot() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		// "36 35 98:0 /root /mount/point options ... - fstype source options"
		mount, kind, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(kind, "cgroup2 ") {
			continue
		}
		if fields := strings.Fields(mount); len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted")
}

// cgroup is the directory of a control group (version 2).
type cgroup string

func makeCgroup(dir string) (cgroup, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make control group: %w", err)
	}
	return cgroup(dir), nil
}

func (c cgroup) file(name string) string { return filepath.Join(string(c), name) }

// processes returns the ids of the processes in the group, not below it.
func (c cgroup) processes() ([]int, error) {
	text, err := os.ReadFile(c.file("cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.file("cgroup.procs"), err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// event reads one flag of cgroup.events: "populated" or "frozen".
func (c cgroup) event(name string) (bool, error) {
	text, err := os.ReadFile(c.file("cgroup.events"))
	if err != nil {
		return false, err
	}
	return strings.Contains(string(text), name+" 1\n"), nil
}

// freeze stops (or lets go on) every process in the group and returns when
// all of them are stopped (or free).
func (c cgroup) freeze(ctx context.Context, frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	if err := os.WriteFile(c.file("cgroup.freeze"), []byte(value), 0o644); err != nil {
		return err
	}
	return poll(ctx, 5*time.Second, fmt.Sprintf("frozen = %t in %s", frozen, c), func() (bool, error) {
		is, err := c.event("frozen")
		return is == frozen, err
	})
}

// kill ends every process in the group and below it, frozen ones too, and
// returns when none is left.
func (c cgroup) kill(ctx context.Context) error {
	err := os.WriteFile(c.file("cgroup.kill"), []byte("1"), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return c.checkGone()
	}
	if err != nil {
		return err
	}
	return poll(ctx, 10*time.Second, "end of the processes in "+string(c), func() (bool, error) {
		left, err := c.event("populated")
		return !left, err
	})
}

// checkGone tells a group that does not exist from a kernel without
// cgroup.kill (before 5.14), which has to kill one by one.
func (c cgroup) checkGone() error {
	if _, err := os.Stat(string(c)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return filepath.WalkDir(string(c), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		pids, err := cgroup(path).processes()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return err
	})
}

// remove deletes the group and those below it; they must be empty.
func (c cgroup) remove() error {
	below, err := os.ReadDir(string(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range below {
		if entry.IsDir() {
			if err := cgroup(c.file(entry.Name())).remove(); err != nil {
				return err
			}
		}
	}
	return os.Remove(string(c))
}
