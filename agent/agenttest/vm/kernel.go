// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Release is a kernel that the distribution offers.
type Release struct {
	// Series is the beginning of its version, as "6.1".
	Series string
	// Package depends on the package with its present version.
	Package string
}

// Releases are those that tests run on: Debian 12's own, and the newest that it has
// otherwise. Both in the flavour for virtual machines, which boots fastest.
var Releases = []Release{
	{"6.1", "linux-image-cloud-amd64"},
	{"6.12", "linux-image-6.12-cloud-amd64"},
}

// Kernel is an unpacked kernel of the distribution.
type Kernel struct {
	// Image is the path of its vmlinuz.
	Image string
	// Version is what uname -r tells.
	Version string

	modules map[string]string // path by name
}

// Series is the kernel's version without the numbers of its patches, as 6.1.
func (k *Kernel) Series() string { return Series(k.Version) }

// Series shortens what uname -r tells to the first two numbers.
func Series(version string) string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major + "." + minor
}

// FetchKernel returns the kernel of a release. It is downloaded into the directory
// when it is not there: from the package mirror, without root.
func FetchKernel(ctx context.Context, dir string, r Release) (*Kernel, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	root := filepath.Join(dir, r.Package)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		if err := download(ctx, dir, r.Package, root); err != nil {
			return nil, fmt.Errorf("fetch %s: %w", r.Package, err)
		}
	}
	k, err := openKernel(root)
	if err == nil && !strings.HasPrefix(k.Version, r.Series+".") {
		err = fmt.Errorf("%s has become %s: expected %s", r.Package, k.Version, r.Series)
	}
	return k, err
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
