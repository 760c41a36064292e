// SPDX-License-Identifier: Apache-2.0

// Mutants plants known bugs, one at a time, and checks that the tests notice
// each of them. It works on a copy of the module in a temporary directory and
// never touches the work tree.
//
// Usage, in the module's root:
//
//	go run ./scripts/mutants [-run regexp] [-v]
//
// It prints a table and, as the last line, one JSON object with the number of
// mutants and of those that were caught. Exit status 0: all were caught; 1: one
// survived, does not compile, or its text is not found exactly once, or the
// tests fail without any bug.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// limit is how long one package set may take: a mutant may loop for ever.
const limit = 2 * time.Minute

func main() {
	only := flag.String("run", "", "run only the mutants whose name matches")
	verbose := flag.Bool("v", false, "print what the tests say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, *only, *verbose)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, verbose bool) (bool, error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := copyModule(".", dir); err != nil {
		return false, fmt.Errorf("copy the module: %w", err)
	}
	chosen := slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return !match.MatchString(m.Name) })
	if err := checkBaseline(ctx, dir, chosen); err != nil {
		return false, err
	}
	return plantAll(ctx, dir, chosen, verbose)
}

// checkBaseline runs all named tests without a bug: they must pass.
func checkBaseline(ctx context.Context, dir string, chosen []mutant) error {
	var packages []string
	for _, m := range chosen {
		packages = append(packages, m.Tests...)
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	if len(packages) == 0 {
		return fmt.Errorf("no mutant chosen of %d", len(mutants))
	}
	for _, p := range packages {
		if out, err := goTest(ctx, dir, []string{p}); err != nil {
			return fmt.Errorf("the tests of %s fail without any bug: %w\n%s", p, err, out)
		}
	}
	return nil
}

func plantAll(ctx context.Context, dir string, chosen []mutant, verbose bool) (bool, error) {
	caught := 0
	fmt.Printf("%-42s %-42s %s\n", "mutant", "caught by", "seconds")
	for _, m := range chosen {
		start := time.Now()
		by, out, err := plant(ctx, dir, m)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		switch {
		case err != nil:
			by = "ERROR: " + err.Error()
		case by == "":
			by = "SURVIVED"
		default:
			caught++
		}
		fmt.Printf("%-42s %-42s %7.1f\n", m.Name, by, time.Since(start).Seconds())
		if verbose {
			fmt.Println(out)
		}
	}
	line, err := json.Marshal(struct {
		Mutants int `json:"mutants"`
		Caught  int `json:"caught"`
	}{len(chosen), caught})
	fmt.Println(string(line))
	return caught == len(chosen), err
}

// plant puts one bug into the copy, runs its tests, and takes it out again. It
// returns the test that caught it, or nothing.
func plant(ctx context.Context, dir string, m mutant) (by, out string, err error) {
	path := filepath.Join(dir, filepath.FromSlash(m.File))
	good, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	if n := strings.Count(string(good), m.Old); n != 1 {
		return "", "", fmt.Errorf("its text stands %d times in %s, not once", n, m.File)
	}
	bad := strings.Replace(string(good), m.Old, m.New, 1)
	if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
		return "", "", err
	}
	out, failed := goTest(ctx, dir, m.Tests)
	if err := os.WriteFile(path, good, 0o644); err != nil {
		return "", out, err
	}
	if failed == nil {
		return "", out, nil
	}
	by, err = catcher(out)
	return by, out, err
}

func goTest(ctx context.Context, dir string, packages []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := append([]string{"test", "-short", "-vet=off", "-count=1", "-failfast", "-timeout", "60s"},
		strings.Fields(strings.Join(packages, " "))...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var failLine = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// catcher names the first failed test. A mutant that does not compile was caught
// by nobody.
func catcher(out string) (string, error) {
	switch m := failLine.FindStringSubmatch(out); {
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return "", fmt.Errorf("it does not compile: %s", firstLine(out))
	case m != nil:
		return m[1], nil
	case strings.Contains(out, "test timed out"):
		return "the time limit", nil
	case strings.Contains(out, "panic:"):
		return "a panic", nil
	}
	return "", fmt.Errorf("no test failed: %s", firstLine(out))
}

// firstLine returns the first line that is no heading.
func firstLine(out string) string {
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line
		}
	}
	return "(no output)"
}

// copyModule copies what the tests need: source, module files and test data.
func copyModule(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir() && rel != "." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case !d.Type().IsRegular() || !wanted(rel):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, 0o644)
	})
}

func wanted(rel string) bool {
	switch filepath.Ext(rel) {
	case ".go", ".mod", ".sum", ".c", ".h", ".o", ".sql", ".control":
		return true
	}
	return slices.Contains(strings.Split(filepath.ToSlash(rel), "/"), "testdata")
}
