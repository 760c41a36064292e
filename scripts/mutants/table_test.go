// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant whose text has changed in the source plants nothing. This says so long
// before all of them are run.
func TestMutantsStandInTheSource(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.Name] {
			t.Errorf("%q: two mutants have this name", m.Name)
		}
		names[m.Name] = true
		source, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(m.File)))
		if err != nil {
			t.Errorf("%q: %v", m.Name, err)
			continue
		}
		if n := strings.Count(string(source), m.Old); n != 1 {
			t.Errorf("%q: its text stands %d times in %s, want once", m.Name, n, m.File)
		}
	}
}
