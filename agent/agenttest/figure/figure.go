// SPDX-License-Identifier: Apache-2.0

// Package figure is how a test says what it has measured and does not judge: a line
// of its output, behind a mark, which programs find there (scripts/testcount).
package figure

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Mark stands before each figure in the output of a test.
const Mark = "FIGURE "

// Figure is one measurement.
type Figure struct {
	Kernel    string  `json:"kernel"`    // the first two numbers of its version, as 6.1
	Situation string  `json:"situation"` // what happened
	Source    string  `json:"source"`    // who was to tell of it
	Told      bool    `json:"told"`      // it told
	MS        float64 `json:"ms"`        // so many milliseconds later
}

// Log writes the figure into the test's output, as one of the running kernel.
func Log(t testing.TB, f Figure) {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	f.Kernel = series(unix.ByteSliceToString(name.Release[:]))
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(Mark + string(text))
}

// series is the beginning of what uname -r tells.
func series(release string) string {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major + "." + minor
}
