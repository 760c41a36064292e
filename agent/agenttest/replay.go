// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// RunAgain runs tests of the package under test in a process of their own, with what
// is added to its environment, and reports each as a subtest with its output.
func RunAgain(t *testing.T, pattern string, env ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.run", pattern)
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); ended {
		err = nil
	}
	replay(t, strings.Split(string(out), "\n"), cmd.ProcessState.ExitCode(), err)
}

// told is what a test program said of one of its tests.
type told struct {
	name     string // of the last part of the path
	began    bool   // else it is nothing but a part of the names of others
	verdict  string // PASS, FAIL, SKIP; empty: it did not come to its end
	took     string // seconds
	output   []string
	children []*told
}

var (
	runLine = regexp.MustCompile(`^=== (RUN|NAME|PAUSE|CONT) +(\S+)$`)
	endLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)$`)
)

// readTold reads what go test -v prints. The root has no name.
func readTold(lines []string) *told {
	root := new(told)
	present := root
	for _, line := range lines {
		if m := runLine.FindStringSubmatch(line); m != nil {
			present = root.find(m[2])
			present.began = true
		} else if m := endLine.FindStringSubmatch(line); m != nil {
			w := root.find(m[2])
			w.began, w.verdict, w.took = true, m[1], m[3]
			present = root
		} else {
			present.output = append(present.output, line)
		}
	}
	return root
}

// find returns the test with the path, which it makes when it is new.
func (w *told) find(path string) *told {
	for name := range strings.SplitSeq(path, "/") {
		w = w.child(name)
	}
	return w
}

func (w *told) child(name string) *told {
	for _, c := range w.children {
		if c.name == name {
			return c
		}
	}
	c := &told{name: name}
	w.children = append(w.children, c)
	return c
}

// failed reports whether a test in it failed.
func (w *told) failed() bool {
	return slices.ContainsFunc(w.children, func(c *told) bool {
		return c.began && c.verdict != "PASS" && c.verdict != "SKIP" || c.failed()
	})
}

// complaint is about an end that does not fit what was said of the tests.
func (w *told) complaint(exit int, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case len(w.children) == 0:
		return fmt.Sprintf("no test ran, exit code %d", exit)
	case (exit == 0) == w.failed():
		return fmt.Sprintf("exit code %d does not fit the tests", exit)
	}
	return ""
}

// replay makes subtests of what a test program said, and fails when it ended in
// another way. After a failure it shows what was said outside of the tests as well: a
// panic's reason comes behind the end of its test.
func replay(t *testing.T, lines []string, exit int, err error) {
	t.Helper()
	root := readTold(lines)
	for _, c := range root.children {
		c.replay(t)
	}
	if why := root.complaint(exit, err); why != "" {
		t.Errorf("%s:\n%s", why, strings.Join(lines, "\n"))
	} else if root.failed() {
		t.Log(strings.Join(root.output, "\n"))
	}
}

func (w *told) replay(t *testing.T) {
	t.Run(w.name, func(t *testing.T) {
		for _, c := range w.children {
			c.replay(t)
		}
		if output := strings.TrimRight(strings.Join(w.output, "\n"), "\n"); output != "" {
			fmt.Fprintln(t.Output(), output)
		}
		if !w.began {
			return
		}
		fmt.Fprintf(t.Output(), "    took %s s there\n", w.took)
		switch w.verdict {
		case "PASS":
		case "SKIP":
			t.SkipNow()
		case "FAIL":
			t.Fail()
		default:
			t.Error("it did not come to its end")
		}
	})
}
