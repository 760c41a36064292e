// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// download unpacks the kernel aside and publishes it by a rename.
func download(ctx context.Context, dir, metaPackage, root string) error {
	out, err := run(ctx, dir, "apt-cache", "depends", "--important", metaPackage)
	if err != nil {
		return err
	}
	_, name, ok := strings.Cut(out, "Depends: ")
	if !ok {
		return fmt.Errorf("apt-cache depends says %q", out)
	}
	scratch, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if _, err := run(ctx, scratch, "apt-get", "download", strings.Fields(name)[0]); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(debs) != 1 {
		return errors.Join(err, fmt.Errorf("%d packages were downloaded, expected one", len(debs)))
	}
	if _, err := run(ctx, scratch, "dpkg", "-x", debs[0], "root"); err != nil {
		return err
	}
	if err := decompress(ctx, filepath.Join(scratch, "root", "lib", "modules")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(scratch, "root"), root)
}

// decompress replaces the modules that newer packages have compressed: a guest would
// take longer for the few that it loads than the host does for all.
func decompress(ctx context.Context, modules string) error {
	args := []string{"--decompress", "--"}
	err := filepath.WalkDir(modules, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".ko.xz") {
			args = append(args, path)
		}
		return err
	})
	if err != nil || len(args) == 2 {
		return err
	}
	_, err = run(ctx, "", "xz", args...)
	return err
}

// run runs a tool in a directory and returns its standard output.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// lock waits for the exclusive lock of the file and returns its release.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
