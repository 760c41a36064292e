// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A difference is named by its subtest, once.
func TestDiffering(t *testing.T) {
	straight := read("p", []byte("=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/one (0.00s)\n    --- PASS: TestA/two (0.01s)\n"+
		"--- SKIP: TestB (0.00s)\n    helper_test.go:3: no server\n--- PASS: ExampleC (0.00s)\nPASS\n"))
	here := read("p", []byte("--- FAIL: TestA (0.00s)\n    --- PASS: TestA/one (0.00s)\n    --- FAIL: TestA/two (0.01s)\n"+
		"--- PASS: TestB (0.00s)\n--- PASS: TestD (0.00s)\n"))
	want := []string{"p:ExampleC", "p:TestA/two", "p:TestB", "p:TestD"}
	if diff := cmp.Diff(want, straight.differing(here)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got, want := straight.count(), "4 passed, 0 failed, 1 skipped"; got != want {
		t.Errorf("count %q, want %q", got, want)
	}
	if len(straight.differing(straight)) != 0 {
		t.Error("differs from itself")
	}
}

func TestPackageName(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a_test.go": "package wrong_test\n", "b.go": "// Package b.\npackage pgx\n\nimport \"fmt\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if name, err := packageName(dir); name != "pgx" || err != nil {
		t.Errorf("package %q, %v; want pgx", name, err)
	}
}
