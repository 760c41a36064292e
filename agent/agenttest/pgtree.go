// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
