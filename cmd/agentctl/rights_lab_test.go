// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// asNobody runs the real program on a host without any right.
func asNobody(t *testing.T, h *agenttest.Host, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	path, err := h.Lab().Binary(t.Context(), "agentctl")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := h.Command(ctx, path, args...)
	cmd.User = "nobody"
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
	if want := "agentctl: note: processes of other users are not shown: root sees them (CAP_SYS_PTRACE)\n"; stderr != want {
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
