// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// lab is a set of machines on one bridge.
type lab struct {
	id       string // of its namespace, and of what else needs a name
	dir      string
	tree     string
	cgroups  []string // where its machines are; empty: systemd of the host sees to it
	machines []*machine
}

// mustLab makes a lab without machines, which ends with the test.
func mustLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{id: fmt.Sprintf("pgboot%d", os.Getpid()), tree: mustTree(t)}
	t.Cleanup(func() { l.close(t) })
	var err error
	if l.dir, err = os.MkdirTemp(agenttest.ScratchDir(), l.id+"-"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if l.cgroups, err = l.makeCgroups(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"netns", "add", l.id},
		{"-n", l.id, "link", "set", "lo", "up"},
		{"-n", l.id, "link", "add", "br0", "type", "bridge"},
		{"-n", l.id, "link", "set", "br0", "up"},
	} {
		if err := tool(t.Context(), "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// makeCgroups makes a group for the lab where systemd keeps its own: without a systemd
// of the host, all machines would take the same one for theirs, and end each other's
// services.
func (l *lab) makeCgroups() ([]string, error) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return nil, nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var groups []string
	for line := range strings.Lines(string(mounts)) {
		mount, kind, _ := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		named := strings.HasPrefix(kind, "cgroup ") && strings.Contains(kind, "name=systemd")
		if len(fields) < 5 || !named && !strings.HasPrefix(kind, "cgroup2 ") {
			continue
		}
		group := filepath.Join(fields[4], l.id)
		if slices.Contains(groups, group) {
			continue
		}
		if err := os.Mkdir(group, 0o755); err != nil {
			return groups, err
		}
		groups = append(groups, group)
	}
	if len(groups) == 0 {
		return nil, errors.New("no control groups for systemd: expected a mount of cgroup2, or of name=systemd")
	}
	return groups, nil
}

// removeCgroups removes a group and all below it; processes have ended by then.
func removeCgroups(group string) error {
	entries, err := os.ReadDir(group)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroups(filepath.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(group)
}

// close ends the machines and removes what the lab has made.
func (l *lab) close(t *testing.T) {
	for _, m := range l.machines {
		if t.Failed() {
			m.tell(t)
		}
		m.close(t)
	}
	ctx := context.Background()
	if _, err := os.Stat("/run/netns/" + l.id); err == nil {
		if err := tool(ctx, "ip", "netns", "delete", l.id); err != nil {
			t.Error(err)
		}
	}
	for _, group := range l.cgroups {
		if err := removeCgroups(group); err != nil {
			t.Errorf("control group stays: %v", err)
		}
	}
	if l.dir != "" {
		if err := os.RemoveAll(l.dir); err != nil {
			t.Error(err)
		}
	}
}

// setPlugged connects a machine's cable to the bridge, or takes it off: both ends
// keep their carrier, so nobody is told.
func (l *lab) setPlugged(t *testing.T, m *machine, plugged bool) {
	t.Helper()
	args := []string{"-n", l.id, "link", "set", m.port(), "nomaster"}
	if plugged {
		args = append(args[:5], "master", "br0")
	}
	if err := tool(t.Context(), "ip", args...); err != nil {
		t.Fatal(err)
	}
}
