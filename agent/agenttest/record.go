// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// runDir holds one record per lab of the machine; /run is empty after a boot.
const runDir = "/run/pgconmgr-lab"

// record says what a lab is made of, so that a stranger can remove it. It is
// written before the first part exists.
type record struct {
	ID         string   `json:"id"`
	Owner      int      `json:"owner"`
	OwnerStart uint64   `json:"owner_start"` // clock ticks after boot: tells a reused pid
	Namespaces []string `json:"namespaces"`
	Cgroup     string   `json:"cgroup"`
	Dir        string   `json:"dir"`
}

func (r *record) path() string { return filepath.Join(runDir, "labs", r.ID+".json") }

func (r *record) write() error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.path()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(r.path(), text, 0o644)
}

// remove ends and deletes everything in the record, and then the record. It
// goes on after an error and may be repeated.
func (r *record) remove(ctx context.Context) error {
	errs := []error{cgroup(r.Cgroup).kill(ctx)}
	errs = append(errs, removeSharedMemory(r.Dir), deleteNetns(ctx, r.Namespaces))
	errs = append(errs, removeWithRetry(ctx, cgroup(r.Cgroup)), os.RemoveAll(r.Dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove lab %s: %w", r.ID, err)
	}
	err := os.Remove(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ownerAlive reports whether the process that made the lab still runs.
func (r *record) ownerAlive() bool {
	start, err := startTime(r.Owner)
	return err == nil && start == r.OwnerStart
}

// startTime returns field 22 of /proc/PID/stat (proc(5)).
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the command in parentheses and may hold anything.
	end := strings.LastIndexByte(string(text), ')')
	if end < 0 {
		return 0, fmt.Errorf("/proc/%d/stat: no command", pid)
	}
	fields := strings.Fields(string(text[end+1:]))
	const index = 22 - 3 // the first field after the command is the third
	if len(fields) <= index {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d is dead", pid)
	}
	return strconv.ParseUint(fields[index], 10, 64)
}

// Sweep removes the labs whose owner is dead and returns their ids. New calls
// it; a program may, to clean up without making a lab.
func Sweep(ctx context.Context) ([]string, error) {
	unlock, err := lockFile(filepath.Join(runDir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	paths, err := filepath.Glob(filepath.Join(runDir, "labs", "*.json"))
	if err != nil {
		return nil, err
	}
	var swept []string
	var errs []error
	for _, path := range paths {
		r, err := readRecord(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if r == nil || r.ownerAlive() {
			continue
		}
		swept = append(swept, r.ID)
		errs = append(errs, r.remove(ctx))
	}
	return swept, errors.Join(errs...)
}

// readRecord returns nil for a record that its owner has just removed or not
// yet written to the end.
func readRecord(path string) (*record, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// lockFile waits for the exclusive lock of the file and returns its release.
func lockFile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
