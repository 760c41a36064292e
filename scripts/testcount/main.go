// SPDX-License-Identifier: Apache-2.0

// Command testcount runs checks and tiers of tests, prints one line for each
// package, the whole output of what failed and every reason to skip, and ends
// with a line that counts:
//
//	go run ./scripts/testcount -check 'lint=make -s lint' -tier 'unit=-race ./agent/...'
//	...
//	412 passed, 0 failed, 3 skipped
//
// A tier is the arguments of go test, a check any command; words are split at
// spaces. A test with subtests counts as its subtests do. A package that does
// not compile, a check that fails and a tier without a test each count as one
// failure. The exit code is 0 without failures, else 1.
//
// What tests have measured stands in their output behind the mark FIGURE (see
// agent/agenttest/figure). A report is a command that reads all of it, a figure a line,
// and whose output is shown before the count.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

// step is a check, a tier or a report.
type step struct {
	name  string
	words []string
	run   func(context.Context, step, *count, io.Writer)
}

func run(ctx context.Context, args []string, out io.Writer) int {
	steps, err := parseSteps(args)
	if err != nil {
		fmt.Fprintln(out, "testcount:", err)
		return 2
	}
	total := newCount()
	for _, s := range steps {
		s.run(ctx, s, total, out)
	}
	total.printSkips(out)
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", total.passed, total.failed, len(total.skips))
	if total.failed > 0 {
		return 1
	}
	return 0
}

func parseSteps(args []string) ([]step, error) {
	var steps []step
	add := func(run func(context.Context, step, *count, io.Writer)) func(string) error {
		return func(value string) error {
			name, command, ok := strings.Cut(value, "=")
			words := strings.Fields(command)
			if !ok || name == "" || len(words) == 0 {
				return fmt.Errorf("%q: expected NAME=WORDS", value)
			}
			steps = append(steps, step{name: name, words: words, run: run})
			return nil
		}
	}
	flags := flag.NewFlagSet("testcount", flag.ContinueOnError)
	flags.Func("check", "NAME=COMMAND to run", add(runCheck))
	flags.Func("tier", "NAME=ARGUMENTS of go test", add(runTier))
	flags.Func("report", "NAME=COMMAND that makes a report of the figures so far", add(runReport))
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || len(steps) == 0 {
		return nil, errors.New("expected only -check, -tier and -report, at least one")
	}
	return steps, nil
}

// command ends its whole process group when ctx does.
func command(ctx context.Context, words []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func runCheck(ctx context.Context, s step, total *count, out io.Writer) {
	start := time.Now()
	text, err := command(ctx, s.words).CombinedOutput()
	result := "ok  "
	if err != nil {
		result = "FAIL"
		total.failed++
	}
	fmt.Fprintf(out, "%s %-6s %s (%.1fs)\n", result, s.name, strings.Join(s.words, " "), time.Since(start).Seconds())
	if err != nil {
		fmt.Fprintf(out, "%s%v\n", text, err)
	}
}

// runReport shows what the command makes of the figures.
func runReport(ctx context.Context, s step, total *count, out io.Writer) {
	cmd := command(ctx, s.words)
	cmd.Stdin = strings.NewReader(strings.Join(total.figures, ""))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		total.failed++
		fmt.Fprintf(out, "FAIL %-6s %s: %v\n", s.name, strings.Join(s.words, " "), err)
	}
}

// runTier runs go test -json and counts what it says.
func runTier(ctx context.Context, s step, total *count, out io.Writer) {
	cmd := command(ctx, append([]string{"go", "test", "-json"}, s.words...))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		total.failed++
		fmt.Fprintf(out, "FAIL %-6s %v\n", s.name, err)
		return
	}
	t := newTier(s.name, total, out)
	scanErr := t.read(stdout)
	t.finish(errors.Join(scanErr, cmd.Wait()), stderr.String())
}

// read takes the stream of go test -json (go doc test2json). Lines that are no
// JSON come from programs that write past their test; they are kept.
func (t *tier) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.stray = append(t.stray, lines.Text())
			continue
		}
		t.add(e)
	}
	return lines.Err()
}
