// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func stream(t *testing.T, events ...event) string {
	t.Helper()
	var b strings.Builder
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(text, '\n'))
	}
	return b.String()
}

func TestTierCounts(t *testing.T) {
	exit1 := errors.New("exit status 1")
	for _, tt := range []struct {
		name                    string
		events                  []event
		end                     error
		passed, failed, skipped int
		prints                  string
	}{
		{
			name: "a parent counts as its subtests",
			events: []event{
				{Action: "pass", Package: "p", Test: "A/x"}, {Action: "pass", Package: "p", Test: "A/y"},
				{Action: "pass", Package: "p", Test: "A"}, {Action: "pass", Package: "p", Test: "B"},
				{Action: "pass", Package: "p"},
			},
			passed: 3, prints: "3 passed",
		}, {
			name: "what TestMain printed stands below its package",
			events: []event{
				{Action: "pass", Package: "p", Test: "A"},
				{Action: "output", Package: "p", Output: "PASS\n"},
				{Action: "output", Package: "p", Output: "row  100ms  passed\n"},
				{Action: "output", Package: "p", Output: "ok  \tp\t1.0s\n"},
				{Action: "pass", Package: "p"},
			},
			passed: 1, prints: "1 passed\n  row  100ms  passed\n",
		}, {
			name: "a failed subtest is one failure, with its output",
			events: []event{
				{Action: "output", Package: "p", Test: "A/x", Output: "x is broken\n"},
				{Action: "fail", Package: "p", Test: "A/x"}, {Action: "fail", Package: "p", Test: "A"},
				{Action: "fail", Package: "p"},
			},
			end: exit1, failed: 1, prints: "x is broken",
		}, {
			name: "a parent may fail by itself",
			events: []event{
				{Action: "pass", Package: "p", Test: "A/x"}, {Action: "fail", Package: "p", Test: "A"},
				{Action: "fail", Package: "p"},
			},
			end: exit1, passed: 1, failed: 1,
		}, {
			name: "a skip keeps its reason",
			events: []event{
				{Action: "output", Package: "p", Test: "A", Output: "    a_test.go:7: needs root\n"},
				{Action: "skip", Package: "p", Test: "A"}, {Action: "pass", Package: "p"},
			},
			skipped: 1, prints: "skipped: needs root: unit:A",
		}, {
			name: "a package that does not compile",
			events: []event{
				{Action: "build-output", ImportPath: "p [p.test]", Output: "p.go:1: syntax error\n"},
				{Action: "build-fail", ImportPath: "p [p.test]"},
				{Action: "fail", Package: "p", FailedBuild: "p [p.test]"},
			},
			end: exit1, failed: 1, prints: "syntax error",
		}, {
			name: "a test that the package died in",
			events: []event{
				{Action: "run", Package: "p", Test: "A"},
				{Action: "output", Package: "p", Test: "A", Output: "panic: boom\n"},
				{Action: "fail", Package: "p"},
			},
			end: exit1, failed: 1, prints: "panic: boom",
		}, {
			name:   "a package without tests is nothing",
			events: []event{{Action: "pass", Package: "q", Test: "A"}, {Action: "pass", Package: "q"}, {Action: "skip", Package: "p"}},
			passed: 1,
		}, {
			name: "no test at all is a failure", failed: 1, prints: "no test ran",
		}, {
			name: "go test that could not begin", end: exit1, failed: 1, prints: "exit status 1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			total := newCount()
			tier := newTier("unit", total, &out)
			if err := tier.read(strings.NewReader(stream(t, tt.events...))); err != nil {
				t.Fatal(err)
			}
			tier.finish(tt.end, "")
			total.printSkips(&out)
			if total.passed != tt.passed || total.failed != tt.failed || len(total.skips) != tt.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d\n%s", total.passed, total.failed,
					len(total.skips), tt.passed, tt.failed, tt.skipped, out.String())
			}
			if !strings.Contains(out.String(), tt.prints) {
				t.Errorf("%q is not in the output:\n%s", tt.prints, out.String())
			}
		})
	}
}

func TestLastLineAndExitCode(t *testing.T) {
	for _, tt := range []struct {
		command string
		code    int
		last    string
	}{
		{"true", 0, "0 passed, 0 failed, 0 skipped"},
		{"false", 1, "0 passed, 1 failed, 0 skipped"},
	} {
		var out strings.Builder
		code := run(t.Context(), []string{"-check", "c=" + tt.command}, &out)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if code != tt.code || lines[len(lines)-1] != tt.last {
			t.Errorf("%s: exit code %d, output:\n%s\nwant %d and last %q", tt.command, code, out.String(), tt.code, tt.last)
		}
	}
	var out strings.Builder
	if code := run(t.Context(), []string{"-tier", "nothing"}, &out); code != 2 {
		t.Errorf("bad usage: exit code %d, want 2", code)
	}
}

// A report gets the figures of the tests and stands before the count.
func TestReport(t *testing.T) {
	var out strings.Builder
	total := newCount()
	tier := newTier("unit", total, &out)
	err := tier.read(strings.NewReader(stream(t,
		event{Action: "output", Package: "p", Test: "A", Output: "    a_test.go:7: FIGURE {\"ms\":1}\n"},
		event{Action: "output", Package: "p", Test: "A", Output: "    a_test.go:8: no figure\n"},
		event{Action: "output", Package: "p", Test: "A/x", Output: "  FIGURE {\"ms\":2}\n"},
		event{Action: "pass", Package: "p", Test: "A/x"}, event{Action: "pass", Package: "p", Test: "A"},
		event{Action: "pass", Package: "p"},
	)))
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	runReport(t.Context(), step{name: "r", words: []string{"cat", "-n"}}, total, &out)
	if got, want := strings.Join(strings.Fields(out.String()), " "), `1 {"ms":1} 2 {"ms":2}`; got != want || total.failed != 0 {
		t.Errorf("got %q, want %q; %d failed", got, want, total.failed)
	}
	runReport(t.Context(), step{name: "r", words: []string{"false"}}, total, &out)
	if total.failed != 1 {
		t.Errorf("a report that fails: %d failed, want 1", total.failed)
	}
}
