// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// asNobody runs the real program on a host without any right.
func asNobody(t *testing.T, h *agenttest.Host, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	return withRights(t, h, nil, args...)
}

// withRights runs it with exactly these capabilities.
func withRights(t *testing.T, h *agenttest.Host, caps []uintptr, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	path, err := h.Lab().Binary(t.Context(), "agentctl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := h.Command(ctx, path, args...)
	cmd.User = "nobody"
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: caps}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var failed *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &failed):
		exit = failed.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return exit, out.String(), errs.String()
}

// Everybody may look; what cannot be shown is said, and nothing can be killed.
func TestUnprivileged(t *testing.T) {
	b := mustBattlefield(t)
	exit, stdout, stderr := asNobody(t, b.db, "sockets", "--port", "5432", "--json")
	if exit != 0 {
		t.Fatalf("exit %d: %s", exit, stderr)
	}
	seen := mustObjects(t, stdout)
	if len(seen) != 9 {
		t.Errorf("%d sockets: want 9", len(seen))
	}
	for _, o := range seen {
		if o.RTT == nil || o.User == nil || *o.User != "root" || o.Processes != nil {
			t.Errorf("socket %+v", o)
		}
	}
	if want := "agentctl: note: processes of other users are not shown: root sees them (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH)\n"; stderr != want {
		t.Errorf("stderr %q, want %q", stderr, want)
	}
	state, err := b.db.Mkdir("", "state")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		exit int
		want string
		args []string
	}{
		{1, "3 sockets: none destroyed: CAP_NET_ADMIN is missing, run as root", b.args("--yes")},
		{exitRefused, "nobody can be asked", b.args()},
		{1, "enter network namespace " + b.db.Namespace() + ": operation not permitted: CAP_SYS_ADMIN is missing, run as root",
			[]string{"sockets", "--netns", b.db.Namespace()}},
		{1, "events.jsonl: permission denied: run as root or as the user of pgwatchdog", []string{"events", "--state-dir", state}},
	} {
		exit, stdout, stderr := asNobody(t, b.db, tt.args...)
		if exit != tt.exit || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", tt.args, exit, stdout, stderr)
		}
	}
	b.mustAll(t, false)
}

// The rights that messages and help name are enough, and nothing less is.
func TestDocumentedRights(t *testing.T) {
	b := mustBattlefield(t)
	for _, tt := range []struct {
		caps []uintptr
		seen bool
	}{
		{[]uintptr{unix.CAP_SYS_PTRACE}, false},
		{[]uintptr{unix.CAP_DAC_READ_SEARCH}, false},
		{[]uintptr{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}, true},
	} {
		exit, stdout, stderr := withRights(t, b.db, tt.caps, "sockets", "--json", "--port", "5432")
		if exit != 0 || (stderr == "") != tt.seen {
			t.Errorf("%v: exit %d, stderr %q", tt.caps, exit, stderr)
		}
		for _, o := range mustObjects(t, stdout) {
			if (len(o.Processes) == 1) != tt.seen {
				t.Errorf("%v: processes %+v", tt.caps, o.Processes)
			}
		}
	}
	exit, stdout, stderr := withRights(t, b.client, []uintptr{unix.CAP_SYS_ADMIN}, "sockets", "--json", "--netns", b.db.Namespace(), "--port", "6000")
	if exit != 0 || len(mustObjects(t, stdout)) != 3 {
		t.Errorf("another namespace: exit %d, stdout %s, stderr %s", exit, stdout, stderr)
	}
	b.mustAll(t, false)
	exit, stdout, stderr = withRights(t, b.db, []uintptr{unix.CAP_NET_ADMIN}, b.args("--yes")...)
	if exit != 0 || !strings.HasSuffix(stdout, "\n4 destroyed\n") {
		t.Errorf("kill: exit %d, stdout %s, stderr %s", exit, stdout, stderr)
	}
	b.mustAll(t, true)
}
