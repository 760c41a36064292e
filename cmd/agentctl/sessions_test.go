// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// mustSessions runs the command against a pgwatchdog that has one of everything.
func mustSessions(t *testing.T, columns int, args ...string) (stdout, stderr string) {
	t.Helper()
	s := newSession(columns, "")
	s.ask = answers(sickAgent(), testSessions()...)
	if exit := s.run(t.Context(), append([]string{"sessions"}, args...)...); exit != 0 {
		t.Fatalf("exit %d, %s", exit, s.errs)
	}
	return s.out.String(), s.errs.String()
}

func TestSessionsGolden(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{0, 80, 200} {
		got, notes := mustSessions(t, columns)
		golden(t, fmt.Sprintf("sessions-%d.txt", columns), got)
		checkWidth(t, "sessions", got, columns)
		for _, want := range []string{"kills are paused for 20m00s, until 2026-11-25 12:20:00 CET, by root for alice: new switch", "the fuse holds the verdicts of 4 sessions", "unmonitored"} {
			if !strings.Contains(notes, want) {
				t.Errorf("notes %q, want %q", notes, want)
			}
		}
		if strings.Contains(got+notes, "\x1b") {
			t.Error("a text steers the terminal")
		}
	}
	got, _ := mustSessions(t, 0, "--json")
	golden(t, "sessions.jsonl", got)
	for _, name := range jsonNames(t, got) {
		if !strings.Contains(sessionsUsage, name) {
			t.Errorf("help says nothing about %s", name)
		}
	}
	for _, c := range sessionColumns {
		if !strings.Contains(sessionsUsage, "  "+c.heading) && c.heading != "gen" {
			t.Errorf("help says nothing about the column %s", c.heading)
		}
	}
}

// At every width the table fits, and clients and states can be told apart.
func TestSessionsFitEveryWidth(t *testing.T) {
	t.Parallel()
	for columns := 40; columns <= 220; columns++ {
		got, _ := mustSessions(t, columns)
		checkWidth(t, fmt.Sprint(columns), got, columns)
		for _, want := range []string{"10.99.0.1:40000", "fd99::1]:50000", "suspect", "init", "down"} {
			if !strings.Contains(got, want) {
				t.Errorf("%d columns: no %s in\n%s", columns, want, got)
			}
		}
	}
}

func TestSessionsFilter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want []uint64 // sessions, in this order
	}{
		{"", []uint64{11, 9, 10, 13, 14, 12}},
		{"--peer 10.99.0.7", []uint64{9, 10}},
		{"--peer 10.99.0.0/24 --peer fd99::1", []uint64{11, 9, 10, 12}},
		{"--state up,init", []uint64{11, 13, 14}},
		{"--state down --peer fd99::1", nil},
		{"--state late --state suspect", []uint64{12}},
	} {
		got, _ := mustSessions(t, 0, strings.Fields("--json "+tt.args)...)
		var ids []uint64
		for line := range strings.Lines(got) {
			var s control.Session
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, s.Session)
		}
		if !slices.Equal(ids, tt.want) {
			t.Errorf("%s: %v, want %v", tt.args, ids, tt.want)
		}
	}
}

// Who does not answer is said, and what to do about it.
func TestSessionsNobody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fs.ErrNotExist, "no pgwatchdog answers in /state: expected a running one, and --state-dir as it has it"},
		{syscall.ECONNREFUSED, "no pgwatchdog answers in /state"},
		{fs.ErrPermission, "run as root or as the user of pgwatchdog"},
		{context.DeadlineExceeded, "does not answer within 10s"},
		{fmt.Errorf("%w: not today", control.ErrRefused), "pgwatchdog refuses: not today"},
	} {
		for _, args := range []string{"sessions", "sessions --watch", "pause", "pause --status"} {
			s := newSession(0, "")
			s.ask = func(_ context.Context, dir string, _ control.Question) (*control.Reply, error) {
				if dir != "/state" {
					t.Errorf("asked in %s", dir)
				}
				return nil, tt.err
			}
			if exit := s.run(t.Context(), strings.Fields(args+" --state-dir /state")...); exit != 1 || !strings.Contains(s.errs.String(), tt.want) {
				t.Errorf("%s, %v: exit %d, %s", args, tt.err, exit, s.errs)
			}
		}
	}
}
