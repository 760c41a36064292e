// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What go test -v prints is told apart by test, whatever a kernel writes in between.
func TestReadTold(t *testing.T) {
	t.Parallel()
	root := readTold(strings.Split(`booting
=== RUN   TestA
=== RUN   TestA/x
    a_test.go:1: from x
=== NAME  TestA
    a_test.go:2: from A
=== RUN   TestA/y#01
    a_test.go:3: needs root
--- FAIL: TestA (0.10s)
    --- PASS: TestA/x (0.00s)
    --- SKIP: TestA/y#01 (0.00s)
=== RUN   TestB
    a_test.go:4: half
panic: boom`, "\n"))
	want := `=  booting
.TestA FAIL     a_test.go:2: from A
..x PASS     a_test.go:1: from x
..y#01 SKIP     a_test.go:3: needs root
.TestB      a_test.go:4: half|panic: boom
`
	if diff := cmp.Diff(want, "="+drawTold(root, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if slashed := readTold([]string{"=== RUN   A/x/y", "--- PASS: A (0.00s)", "    --- PASS: A/x/y (0.00s)"}); slashed.failed() {
		t.Error("a part of a name is taken for a test")
	}
	if !root.failed() || root.children[0].failed() {
		t.Error("a failure, or a test without an end, is not told from a pass")
	}
}

func drawTold(w *told, depth string) string {
	text := depth + w.name + " " + w.verdict + " " + strings.Join(w.output, "|") + "\n"
	for _, c := range w.children {
		text += drawTold(c, depth+".")
	}
	return text
}

// A program that ends well without a test, and one that ends badly without a failed
// test, have failed. The program is this one.
func TestRunAgain(t *testing.T) {
	t.Run("passes", func(t *testing.T) { RunAgain(t, "^TestReadTold$") })
	for _, tt := range []struct {
		name  string
		lines []string
		exit  int
		ok    bool
	}{
		{"passed", []string{"--- PASS: TestA (0.00s)"}, 0, true},
		{"no test", nil, 0, false},
		{"failed without a reason", []string{"--- PASS: TestA (0.00s)"}, 1, false},
		{"no end", []string{"=== RUN   TestA"}, 0, false},
		{"failed", []string{"--- FAIL: TestA (0.00s)"}, 1, true}, // as the subtest says
	} {
		if why := readTold(tt.lines).complaint(tt.exit, nil); (why == "") != tt.ok {
			t.Errorf("%s: %q", tt.name, why)
		}
	}
}
