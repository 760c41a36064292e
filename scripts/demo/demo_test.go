// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// TestDemo runs the demo as make does, with its output in a pipe, and once more
// with a heartbeat as good as none: that must fail.
func TestDemo(t *testing.T) {
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	binary := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, tt := range []struct {
		args string
		exit int
		says string
	}{
		{"--timeout 300ms --limit 30s", 0, "All of it happened"},
		{"--timeout 9m --interval 100ms --limit 5s", 1, "FAILED: the writer's error: did not happen within 5s"},
		{"--timeout 10ms", 2, "expected at least 10ms"},
	} {
		cmd := exec.CommandContext(t.Context(), binary, strings.Fields(tt.args)...)
		out, _ := cmd.CombinedOutput()
		text := string(out)
		if got := cmd.ProcessState.ExitCode(); got != tt.exit || !strings.Contains(text, tt.says) {
			t.Errorf("demo %s: exit status %d, want %d and %q in:\n%s", tt.args, got, tt.exit, tt.says, text)
		}
		if tt.exit == 0 {
			checkPlain(t, text)
		}
	}
}

// checkPlain checks that a text is fit for a pipe and for 80 columns.
func checkPlain(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "\x1b") {
		t.Error("escape sequences in a pipe")
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
			t.Errorf("a line of %d characters, want at most %d: %s", n, width, line)
		}
	}
}

func TestPicture(t *testing.T) {
	var out strings.Builder
	s := &screen{w: &out, pictures: true}
	s.picture(scene{apps: working, servers: [2]server{{"db1", "primary", true, true}, {"db2", "standby", false, false}}})
	checkPlain(t, out.String())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines[1:] {
		if len(line) != len(lines[1]) {
			t.Errorf("crooked: %q", line)
		}
	}
	if !strings.Contains(lines[0], "db1 - DEAD") || strings.Contains(out.String(), "db2 - DEAD") {
		t.Errorf("want db1 dead and db2 alive:\n%s", out.String())
	}
}

// A pipe gets plain text, whatever the environment says.
func TestScreenOfPipe(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	s := newScreen(write, func(string) string { return "" })
	if s.colors || s.pictures {
		t.Errorf("colors %t, pictures %t in a pipe", s.colors, s.pictures)
	}
}

func TestTimeline(t *testing.T) {
	var out strings.Builder
	line := &timeline{zero: mono.Instant(time.Hour), timeout: 300 * time.Millisecond}
	line.verdict(line.zero.Add(302*time.Millisecond), "second", "text")
	line.add(moment{at: line.zero, what: "first"})
	line.show(&screen{w: &out})
	want := "\n       0.0 ms  first\n     302.0 ms  second                                     timeout + 2.0 ms\n               \"text\"\n"
	if got := out.String(); got != want {
		t.Errorf("shows\n%s, want\n%s", got, want)
	}
	if err := line.err(); err != nil {
		t.Errorf("a verdict on time: %v", err)
	}
	line.verdict(line.zero.Add(299*time.Millisecond), "early", "")
	if line.err() == nil {
		t.Error("a verdict before the timeout is no error")
	}
}

func TestOptions(t *testing.T) {
	env := map[string]string{"DEMO_TIMEOUT": "2s"}
	o, err := parse([]string{"--limit", "1s"}, func(name string) string { return env[name] })
	if want := (options{2 * time.Second, 666 * time.Millisecond, time.Second}); err != nil || o != want {
		t.Errorf("%+v, %v; want %+v", o, err, want)
	}
	if _, err := parse(nil, func(string) string { return "soon" }); err == nil {
		t.Error("a bad environment variable was taken")
	}
}
