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

// metaPackage depends on the distribution's present kernel for virtual machines,
// which boots fastest.
const metaPackage = "linux-image-cloud-amd64"

// Kernel is an unpacked kernel of the distribution.
type Kernel struct {
	// Image is the path of its vmlinuz.
	Image string
	// Version is what uname -r tells.
	Version string

	modules map[string]string // path by name
}

// FetchKernel returns the distribution's kernel. It is downloaded into the
// directory when it is not there: from the package mirror, without root.
func FetchKernel(ctx context.Context, dir string) (*Kernel, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	root := filepath.Join(dir, metaPackage)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		if err := download(ctx, dir, root); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", metaPackage, err)
		}
	}
	return openKernel(root)
}

// download unpacks the kernel aside and publishes it by a rename.
func download(ctx context.Context, dir, root string) error {
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
	return os.Rename(filepath.Join(scratch, "root"), root)
}

// openKernel finds the parts of an unpacked package.
func openKernel(root string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, errors.Join(err, fmt.Errorf("%s: %d kernels, expected one", root, len(images)))
	}
	k := &Kernel{
		Image: images[0], modules: make(map[string]string),
		Version: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-"),
	}
	err = filepath.WalkDir(filepath.Join(root, "lib", "modules"), func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok && err == nil {
			k.modules[moduleName(name)] = path
		}
		return err
	})
	if err == nil && len(k.modules) == 0 {
		err = fmt.Errorf("%s: no modules that are not compressed", root)
	}
	return k, err
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
