// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Processors: the watchdog has one for itself.
const (
	agentCore = 0
	loadCore  = 1
)

// agent is the pgwatchdog of one trial, alone in a control group.
type agent struct {
	*agenttest.Process
	group string
	armed string // file of the sessions that it has armed
}

func (w *world) startAgent(ctx context.Context) (*agent, error) {
	process, err := w.instance.StartWatchdog(ctx, agenttest.WatchdogOptions{
		Conf: map[string]string{"watchdog.max_heartbeat_connections": strconv.Itoa(maxSessions)},
		Args: []string{"--key-file", w.keyFile},
	})
	if err != nil {
		return nil, err
	}
	w.agent = process
	w.trials++
	a := &agent{
		Process: process, group: filepath.Join(w.db.Cgroup(), fmt.Sprintf("agent%d", w.trials)),
		armed: filepath.Join(w.lab.Dir, w.db.Name, w.instance.Name, "watchdog", "armed.json"),
	}
	if err := os.Mkdir(a.group, 0o755); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(process.Pid())
	if err := os.WriteFile(filepath.Join(a.group, "cgroup.procs"), []byte(pid), 0o644); err != nil {
		return nil, err
	}
	return a, pin(process.Pid(), agentCore)
}

// stop ends the agent at once: its clients are about to go, and nobody is to be
// judged for that. The next one must not know them: it would begin with them in
// its memory.
func (a *agent) stop() {
	_, _ = a.Kill(context.Background())
	_ = os.Remove(a.group)
	_ = os.Remove(a.armed)
}

// pin lets all threads of a process run on one processor; new threads inherit it.
func pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return fmt.Errorf("pin thread %d to processor %d: %w", tid, core, err)
		}
	}
	return nil
}

// resident is VmRSS in bytes.
func (a *agent) resident() (int, error) {
	kib, err := numberAfter(fmt.Sprintf("/proc/%d/status", a.Pid()), "VmRSS:")
	return kib * 1024, err
}

// cpu watches the control group for a while and returns its share of a core.
func (a *agent) cpu(ctx context.Context, d time.Duration) (percent float64, err error) {
	stat := filepath.Join(a.group, "cpu.stat")
	began := time.Now()
	before, err := numberAfter(stat, "usage_usec")
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, d); err != nil {
		return 0, err
	}
	after, err := numberAfter(stat, "usage_usec")
	if err != nil {
		return 0, err
	}
	used := time.Duration(after-before) * time.Microsecond
	return 100 * used.Seconds() / time.Since(began).Seconds(), nil
}

// numberAfter finds the number behind a name at the start of a line.
func numberAfter(path, name string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("%s: no %s in it", path, name)
}
