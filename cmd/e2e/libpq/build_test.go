// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// source is the folder of the library.
const source = "../../../conmgr/libpq"

// built is where make puts the library and its programs. They wait longer for
// conmgr than the library does: on a busy machine the programs that start at once
// would go through proxy mode, which is right but not what is tested here. How long
// the library waits is tested in C (test_trouble.c).
var built = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../../bin/libpq/patient")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "make", "-C", source, "BUILD="+dir, "CPPFLAGS=-DMARK_PATIENCE=10000", "programs")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make: %w\n%s", err, out)
	}
	return dir, nil
})

// needBuild skips the test where the library cannot be built, and builds it.
func needBuild(t testing.TB) string {
	t.Helper()
	for _, tool := range []string{"make", "gcc", "ecpg", "psql", "pg_config"} {
		agenttest.NeedTool(t, tool)
	}
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// install puts the library, the programs and the scripts into a directory that
// everybody can read, and returns it.
func install(t testing.TB, h *agenttest.Host) string {
	t.Helper()
	from := needBuild(t)
	to, err := h.Mkdir("nobody", "libpq")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(source, "tests", "programs", "*_app.*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"libconmgr.so", "programs/*"} {
		more, err := filepath.Glob(filepath.Join(from, pattern))
		if err != nil || len(more) == 0 {
			t.Fatalf("%s in %s: %v", pattern, from, err)
		}
		files = append(files, more...)
	}
	for _, file := range files {
		target := filepath.Join(to, "programs", filepath.Base(file))
		if filepath.Base(file) == "libconmgr.so" { // where the linked program looks for it
			target = filepath.Join(to, "libconmgr.so")
		}
		mustCopy(t, file, target)
	}
	return to
}

func mustCopy(t testing.TB, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, text, 0o755)
	}
	if err == nil {
		err = os.Chmod(filepath.Dir(to), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
