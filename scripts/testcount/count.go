// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/figure"
)

// count is the sum over all steps.
type count struct {
	passed, failed int
	skips          []skip
	figures        []string // whole lines, without the mark
}

type skip struct{ test, reason string }

func newCount() *count { return new(count) }

// printSkips lists the skipped tests under each reason.
func (c *count) printSkips(out io.Writer) {
	byReason := make(map[string][]string)
	for _, s := range c.skips {
		byReason[s.reason] = append(byReason[s.reason], s.test)
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		fmt.Fprintf(out, "skipped: %s: %s\n", reason, strings.Join(byReason[reason], " "))
	}
}

// event is one object of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// result is what became of one test, or of a package (test is empty).
type result struct {
	action string
	output strings.Builder
	parent bool // it has subtests
}

type key struct{ pkg, test string }

// tier collects one run of go test.
type tier struct {
	name  string
	total *count
	out   io.Writer

	results map[key]*result
	builds  map[string]*strings.Builder
	stray   []string
	tests   int
	failed  int
}

func newTier(name string, total *count, out io.Writer) *tier {
	return &tier{
		name: name, total: total, out: out,
		results: make(map[key]*result), builds: make(map[string]*strings.Builder),
	}
}

func (t *tier) result(k key) *result {
	r := t.results[k]
	if r == nil {
		r = new(result)
		t.results[k] = r
		if i := strings.LastIndexByte(k.test, '/'); i >= 0 {
			t.result(key{k.pkg, k.test[:i]}).parent = true
		}
	}
	return r
}

func (t *tier) add(e event) {
	switch e.Action {
	case "build-output":
		if t.builds[e.ImportPath] == nil {
			t.builds[e.ImportPath] = new(strings.Builder)
		}
		t.builds[e.ImportPath].WriteString(e.Output)
	case "output":
		if _, found, ok := strings.Cut(e.Output, figure.Mark); ok && e.Test != "" {
			t.total.figures = append(t.total.figures, found)
		}
		t.result(key{e.Package, e.Test}).output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.result(key{e.Package, e.Test}).action = e.Action
		if e.Test == "" {
			t.endPackage(e)
		}
	}
}

// endPackage counts a package's tests, prints its line and what failed, and
// forgets it.
func (t *tier) endPackage(e event) {
	var passed, failed, skipped int
	keys := t.keysOf(e.Package)
	for _, k := range keys {
		r := t.results[k]
		if k.test == "" || r.parent && (r.action != "fail" || t.childFailed(k)) {
			continue
		}
		switch r.action {
		case "pass":
			passed++
		case "skip":
			skipped++
			t.total.skips = append(t.total.skips, skip{t.name + ":" + k.test, reason(r.output.String())})
		default: // fail, or no end: the package died in it
			failed++
		}
	}
	if e.Action == "fail" && failed == 0 {
		failed++ // it does not compile, or it died outside a test
	}
	t.tests += passed + failed + skipped
	t.failed += failed
	t.total.passed += passed
	t.total.failed += failed
	if passed+failed+skipped > 0 {
		t.printPackage(e, passed, failed, skipped)
		t.printSummary(e.Package)
	}
	if failed > 0 {
		t.printFailures(e, keys)
	}
	for _, k := range keys {
		delete(t.results, k)
	}
}

func (t *tier) keysOf(pkg string) []key {
	var keys []key
	for k := range t.results {
		if k.pkg == pkg {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Compare(a.test, b.test) })
	return keys
}

func (t *tier) childFailed(parent key) bool {
	for k, r := range t.results {
		if k.pkg == parent.pkg && strings.HasPrefix(k.test, parent.test+"/") && r.action != "pass" && r.action != "skip" {
			return true
		}
	}
	return false
}

func (t *tier) printPackage(e event, passed, failed, skipped int) {
	word := "ok  "
	if failed > 0 {
		word = "FAIL"
	}
	line := fmt.Sprintf("%s %-6s %s (%.1fs): %d passed", word, t.name, e.Package, e.Elapsed, passed)
	if failed > 0 {
		line += fmt.Sprintf(", %d failed", failed)
	}
	if skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	fmt.Fprintln(t.out, line)
}

// printSummary prints what a package's TestMain had to say, such as the table of
// the end-to-end rows, without the lines of go test itself.
func (t *tier) printSummary(pkg string) {
	for line := range strings.Lines(t.result(key{pkg, ""}).output.String()) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		word, _, _ = strings.Cut(word, "\t")
		if !slices.Contains([]string{"", "PASS", "FAIL", "ok", "coverage:", "exit", "testing:", "panic:"}, word) {
			fmt.Fprint(t.out, "  ", line)
		}
	}
}

// printFailures prints the output of the failed tests, and that of the package
// when there is no test to blame.
func (t *tier) printFailures(e event, keys []key) {
	blamed := false
	for _, k := range keys {
		if r := t.results[k]; k.test != "" && r.action != "pass" && r.action != "skip" {
			blamed = true
			fmt.Fprint(t.out, r.output.String())
		}
	}
	if build := t.builds[e.FailedBuild]; build != nil {
		fmt.Fprint(t.out, build.String())
	} else if !blamed {
		fmt.Fprint(t.out, t.result(key{e.Package, ""}).output.String())
	}
}

// finish judges the run as a whole: err is how go test ended.
func (t *tier) finish(err error, stderr string) {
	if err == nil && t.tests > 0 || err != nil && t.failed > 0 {
		return
	}
	t.total.failed++
	if err == nil {
		fmt.Fprintf(t.out, "FAIL %-6s no test ran\n", t.name)
	} else {
		fmt.Fprintf(t.out, "FAIL %-6s %v\n", t.name, err)
	}
	for _, line := range t.stray {
		fmt.Fprintln(t.out, line)
	}
	fmt.Fprint(t.out, stderr)
}

// location is what testing puts before a message.
var location = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// reason finds the message of t.Skip in a test's output.
func reason(output string) string {
	found := "no reason given"
	for line := range strings.Lines(output) {
		if loc := location.FindString(line); loc != "" {
			found = strings.TrimSpace(strings.TrimPrefix(line, loc))
		}
	}
	return found
}
