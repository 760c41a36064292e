// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PostgresTree makes a copy of the server's programs in dir, with shared files of
// its own to which a test can add: the installed server's stay as they are, for
// other tests and other users. The system user postgres must be able to read dir.
//
// A server looks for its files relative to where its program lies
// (make_relative_path in src/port/path.c of PostgreSQL), so programs are copied and
// everything else is a link.
func PostgresTree(ctx context.Context, dir string) (bin, extensions string, err error) {
	oldBin, err := postgresBin()
	if err != nil {
		return "", "", err
	}
	oldShare, err := sharePath(ctx, oldBin)
	if err != nil {
		return "", "", err
	}
	from := commonDir(oldBin, oldShare)
	moved := func(path string) string { return dir + strings.TrimPrefix(path, from) }
	bin, extensions = moved(oldBin), filepath.Join(moved(oldShare), "extension")
	lib := filepath.Join(filepath.Dir(oldBin), "lib")
	err = errors.Join(
		os.MkdirAll(filepath.Dir(bin), 0o755), os.MkdirAll(extensions, 0o755),
		linkAll(oldShare, moved(oldShare)), linkAll(filepath.Join(oldShare, "extension"), extensions),
		os.Symlink(lib, moved(lib)), copyTree(ctx, oldBin, bin))
	if err != nil {
		return "", "", fmt.Errorf("copy PostgreSQL: %w", err)
	}
	return bin, extensions, nil
}

// sharePath asks where the server's shared files are. initdb refuses root.
func sharePath(ctx context.Context, bin string) (string, error) {
	out, err := runTool(ctx, "", "setpriv", "--reuid="+postgresUser, "--regid="+postgresUser, "--clear-groups", "--",
		"sh", "-c", `cd / && exec "$0" --show -D /nonexistent 2>&1`, filepath.Join(bin, "initdb"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "share_path="); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("initdb --show: no share_path in %q", out)
}

// commonDir is the deepest directory that holds both.
func commonDir(a, b string) string {
	dir := filepath.Dir(a)
	for dir != "/" && !strings.HasPrefix(b, dir+"/") {
		dir = filepath.Dir(dir)
	}
	return strings.TrimSuffix(dir, "/")
}

// linkAll links to each entry of a directory that the other one lacks.
func linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Symlink(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// MustExtension makes a PostgresTree with the SQL extension watchdog, which reads
// what agents tell in runDir, and returns the directory of its programs. It ends
// with the test.
func MustExtension(t testing.TB, runDir string) (bin string) {
	t.Helper()
	NeedRoot(t)
	NeedPostgres(t)
	NeedTool(t, "make")
	dir, err := os.MkdirTemp(ScratchDir(), "pgconmgr-extension-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	bin, extensions, err := PostgresTree(t.Context(), dir)
	root, rootErr := ModuleRoot()
	if err := errors.Join(err, rootErr, os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	_, err = runTool(t.Context(), "", "make", "-C", filepath.Join(root, "watchdog", "extension"), "install",
		"extensiondir="+extensions, "rundir="+runDir)
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Psql returns psql of the server's version in a directory of programs, or another
// one.
func Psql(bin string) string {
	path := filepath.Join(bin, "psql")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return "psql"
}

// Script runs a file by psql as superuser in database postgres, with variables as
// "name=value", and returns what it wrote to both outputs.
func (p *Postgres) Script(ctx context.Context, path string, variables ...string) (string, error) {
	args := []string{"-X", "-h", p.SocketDir, "-p", fmt.Sprint(p.Port), "-U", "postgres", "-d", "postgres", "-f", path}
	for _, v := range variables {
		args = append(args, "-v", v)
	}
	out, err := exec.CommandContext(ctx, Psql(p.bin), args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("psql -f %s: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
