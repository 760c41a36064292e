// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// lines are the records of a state directory: of this version, of an older one
// and of one to come.
var lines = []string{
	`{"seq":1,"time":"2026-11-25T10:00:00.123456Z","kind":"waiting for comeback","addr":"10.99.0.7","conmgr":"0a0b","session":9,"case":"disconnect","reason":"connection lost","silence_ms":12}`,
	`{"seq":2,"time":"2026-11-25T10:30:00Z","kind":"warrant","addr":"10.99.0.1","conmgr":"0102","session":3,"warrant":1,"case":"timeout","reason":"no beat","silence_ms":3012,"verdict_at":"2026-11-25T10:29:59.9Z","outcome":"done","evidence":"no socket of the peer has heard of it later than the last frame","sockets":"12 destroyed","backends":12,"ended":12,"pids":[4711,4712],"steps_ms":{"look":0.4,"terminate":1.25}}`,
	`{"seq":3,"time":"2026-11-25T10:45:00Z","kind":"warrant","addr":"fd99::1","outcome":"survivors","silence_ms":90061000,"case":"timeout","backends":2,"pids":[50,51],"survivors":[{"pid":51,"user":"postgres","why":"superuser session"}],"survivors_total":1,"error":"terminate: \u001b[31m"}`,
	`{"seq":4,"time":"2026-11-25T10:50:00Z","kind":"kills paused","addr":"","sockets":{"destroyed":3,"gone":1},"brand_new":["a b",{"deep":{"backend_pid":777}}],"dry_run":true,"nothing":null}`,
}

// mustState writes a state directory.
func mustState(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEventsGolden(t *testing.T) {
	t.Parallel()
	dir := mustState(t, lines...)
	for _, tt := range []struct {
		columns int
		option  string
		file    string
	}{
		{0, "", "events-0.txt"}, {80, "", "events-80.txt"}, {200, "", "events-200.txt"}, {80, "--expanded", "events-expanded.txt"},
	} {
		s := newSession(tt.columns, "")
		if exit := s.run(t.Context(), strings.Fields("events --state-dir "+dir+" "+tt.option)...); exit != 0 || s.errs.String() != "" {
			t.Fatalf("%s: exit %d, stderr %q", tt.file, exit, s.errs)
		}
		got := s.out.String()
		golden(t, tt.file, got)
		if strings.Contains(got, "\x1b") {
			t.Errorf("%s: a record steers the terminal", tt.file)
		}
		if tt.option == "" {
			checkWidth(t, tt.file, got, tt.columns)
		}
	}
}

func TestEventsFilters(t *testing.T) {
	t.Parallel()
	dir := mustState(t, lines...)
	for _, tt := range []struct {
		options string
		want    []int
	}{
		{"", []int{1, 2, 3, 4}},
		{"--peer 10.99.0.1", []int{2}},
		{"--peer ::ffff:10.99.0.1", []int{2}},
		{"--peer 10.99.0.0/24", []int{1, 2}},
		{"--peer 10.99.0.7 --peer fd99::/64", []int{1, 3}},
		{"--pid 4711", []int{2}},
		{"--pid 51", []int{3}},
		{"--pid 777", []int{4}},
		{"--pid 3", nil}, // a session, not a process
		{"--pid 50 --pid 4712", []int{2, 3}},
		{"--since 11:00", nil}, // replaced below
		{"--since 30min", []int{2, 3, 4}},
		{"--since 1800", []int{2, 3, 4}},
		{"--since 2026-11-25T10:45:00Z", []int{3, 4}},
		{"--since 2026-11-25T11:50:00+01:00", []int{4}},
		{"--since 2026-11-25", []int{1, 2, 3, 4}},
		{"--since 2026-11-26", nil},
		{"--since 1h --peer 10.99.0.0/16 --pid 4711", []int{2}},
	} {
		args := append(strings.Fields("events --json --state-dir "+dir), strings.Fields(tt.options)...)
		if tt.options == "--since 11:00" {
			args[len(args)-1] = "2026-11-25 11:46" // in the user's zone
			tt.want = []int{4}
		}
		stdout, _ := mustRun(t, 0, args...)
		var want strings.Builder
		for _, i := range tt.want {
			want.WriteString(lines[i-1] + "\n") // as it is
		}
		if stdout != want.String() {
			t.Errorf("%q: %s\nwant %s", args, stdout, want.String())
		}
	}
}

// Following goes on over new records, and a table keeps its columns while they
// fit.
func TestEventsFollow(t *testing.T) {
	t.Parallel()
	dir := mustState(t, lines[0])
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(80, "")
	ended := make(chan int, 1)
	go func() { ended <- s.run(ctx, "events", "--follow", "--state-dir", dir) }()
	agenttest.Eventually(t, limit, "the first record", func() bool { return strings.Contains(s.out.String(), "10.99.0.7") })
	f, err := os.OpenFile(filepath.Join(dir, "events.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for seq := 2; seq <= 4; seq++ {
		again := strings.Replace(lines[0], `"seq":1`, fmt.Sprintf(`"seq":%d`, seq), 1)
		if _, err := f.WriteString(again + "\n"); err != nil {
			t.Fatal(err)
		}
		agenttest.Eventually(t, limit, "a new record", func() bool { return strings.Count(s.out.String(), "10.99.0.7") == seq })
	}
	if _, err := f.WriteString(strings.Replace(lines[2], `"seq":3`, `"seq":7`, 1) + "\n{\n"); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, limit, "a wider record and what is wrong", func() bool {
		return strings.Contains(s.out.String(), "fd99::1") && strings.Count(s.errs.String(), "\n") == 2
	})
	cancel()
	if exit := <-ended; exit != 0 {
		t.Errorf("exit %d", exit)
	}
	if n := strings.Count(s.out.String(), "time  "); n != 2 {
		t.Errorf("headings %d times, want once, and once more for a wider record:\n%s", n, s.out)
	}
	want := "agentctl: note: 1 record could not be read\nagentctl: note: 2 records missing between those shown\n"
	if s.errs.String() != want {
		t.Errorf("stderr %q, want %q", s.errs, want)
	}
}

func TestEventsNothing(t *testing.T) {
	t.Parallel()
	stdout, stderr := mustRun(t, 0, "events", "--state-dir", t.TempDir())
	if !strings.HasPrefix(stdout, "time  event") || strings.Count(stdout, "\n") != 1 || stderr != "" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	for _, option := range []string{"--json", "--expanded"} {
		if stdout, _ := mustRun(t, 0, "events", option, "--state-dir", t.TempDir()); stdout != "" {
			t.Errorf("%s: %q", option, stdout)
		}
	}
	_, stderr = mustRun(t, 1, "events", "--state-dir", "/nonexistent")
	if want := "agentctl: error: no state directory /nonexistent: expected --state-dir as pgwatchdog has it\n"; stderr != want {
		t.Errorf("stderr %q, want %q", stderr, want)
	}
}
