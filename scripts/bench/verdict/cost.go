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

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// idleCost is what a daemon costs while nothing happens.
type idleCost struct {
	Daemon       string  `json:"daemon"`
	Seconds      float64 `json:"seconds"`
	CPUPercent   float64 `json:"cpu_percent"` // of one core
	WakeupsPerS  float64 `json:"wakeups_per_s"`
	LogLines     int     `json:"log_lines"`
	Descriptors  int     `json:"descriptors"`
	ResidentKiB  int     `json:"resident_kib"`
	HeartbeatsMS float64 `json:"interval_ms"`
	UDP          bool    `json:"udp"`
}

// usage is what /proc says of all threads of a process.
type usage struct {
	cpu     time.Duration
	wakeups int // voluntary context switches: each was followed by a wake-up
	lines   int
	at      time.Time
}

// cost watches both daemons idle for a minute, after a few seconds to settle.
func (b *bench) cost(ctx context.Context, w *world, t trial) error {
	daemons := []struct {
		name    string
		process *agenttest.Process
	}{{"conmgr", w.cm.Process}, {"pgwatchdog", w.agent}}
	if err := w.admin.Close(ctx); err != nil {
		return err
	}
	if err := pause(ctx, 5*time.Second); err != nil {
		return err
	}
	var before []usage
	for _, d := range daemons {
		u, err := look(d.process)
		if err != nil {
			return err
		}
		before = append(before, u)
	}
	if err := pause(ctx, b.control); err != nil {
		return err
	}
	for i, d := range daemons {
		c, err := costSince(d.process, before[i])
		if err != nil {
			return err
		}
		c.Daemon, c.HeartbeatsMS, c.UDP = d.name, t.interval.Seconds()*1000, t.udp
		b.report.Idle = append(b.report.Idle, c)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func look(p *agenttest.Process) (u usage, err error) {
	u.at = time.Now()
	text, err := p.Log()
	if err != nil {
		return u, err
	}
	u.lines = strings.Count(text, "\n")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.Pid()))
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			return u, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s/schedstat: %w", task, err)
		}
		switches, err := statusNumber(filepath.Join(task, "status"), "voluntary_ctxt_switches")
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ns)
		u.wakeups += switches
	}
	return u, nil
}

// statusNumber reads a line of /proc/PID/status.
func statusNumber(path, name string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}

func costSince(p *agenttest.Process, before usage) (c idleCost, err error) {
	now, err := look(p)
	if err != nil {
		return c, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		return c, err
	}
	resident, err := statusNumber(fmt.Sprintf("/proc/%d/status", p.Pid()), "VmRSS")
	if err != nil {
		return c, err
	}
	took := now.at.Sub(before.at).Seconds()
	return idleCost{
		Seconds: round(took), LogLines: now.lines - before.lines, Descriptors: len(fds), ResidentKiB: resident,
		CPUPercent:  round(100 * (now.cpu - before.cpu).Seconds() / took),
		WakeupsPerS: round(float64(now.wakeups-before.wakeups) / took),
	}, nil
}
