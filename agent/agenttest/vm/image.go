// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// image collects the files of a guest.
type image struct {
	archive cpio
	seen    map[string]bool // names in the archive
}

func newImage(w io.Writer) *image { return &image{archive: cpio{w: w}, seen: map[string]bool{}} }

// writeImage writes the guest's root directory to a file.
func (m *Machine) writeImage(ctx context.Context, path, guest string, modules []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = m.fill(ctx, newImage(w), guest, modules)
	return errors.Join(err, w.Flush(), f.Close())
}

func (m *Machine) fill(ctx context.Context, i *image, guest string, modules []string) error {
	plan, err := m.plan(modules)
	if err != nil {
		return err
	}
	errs := []error{i.text(planPath, plan), i.copy("/init", guest)}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		errs = append(errs, i.dir(dir))
	}
	for _, path := range modules {
		errs = append(errs, i.copy(modulePath(path), path))
	}
	for _, name := range m.Programs {
		errs = append(errs, i.program(ctx, name))
	}
	for _, path := range m.Trees {
		errs = append(errs, i.tree(path, path))
	}
	for to, from := range m.Files {
		errs = append(errs, i.tree(to, from))
	}
	return errors.Join(append(errs, i.archive.close())...)
}

// program adds a program of the host and the libraries that it is linked with.
func (i *image) program(ctx context.Context, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if err := i.copy(path, path); err != nil {
		return err
	}
	out, err := run(ctx, "", "ldd", path)
	if err != nil {
		return nil // static: ldd fails
	}
	// "libz.so.1 => /lib/libz.so.1 (0x...)", or the loader alone: "/lib64/ld.so (0x...)"
	for field := range strings.FieldsSeq(out) {
		if strings.HasPrefix(field, "/") {
			if err := i.copy(field, field); err != nil {
				return err
			}
		}
	}
	return nil
}

// tree adds a file, or a directory with all in it.
func (i *image) tree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return i.copy(filepath.Join(to, inside), path)
	})
}

// copy adds one file as it is on the host, with its owner. Symbolic links are
// followed, except inside a tree to a directory, which is left out.
func (i *image) copy(to, from string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	e := entry{mode: st.Mode, uid: st.Uid, gid: st.Gid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return i.add(to, e)
	case unix.S_IFREG:
	default:
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	e.size, e.body = st.Size, f
	return i.add(to, e)
}

// dir adds an empty directory.
func (i *image) dir(to string) error {
	mode := uint32(unix.S_IFDIR | 0o755)
	if to == "/tmp" {
		mode = unix.S_IFDIR | unix.S_ISVTX | 0o777
	}
	return i.add(to, entry{mode: mode})
}

// text adds a file with a content.
func (i *image) text(to, content string) error {
	return i.add(to, entry{mode: unix.S_IFREG | 0o644, size: int64(len(content)), body: strings.NewReader(content)})
}

// add adds an entry, and the directories above it, once.
func (i *image) add(to string, e entry) error {
	to = strings.TrimPrefix(filepath.Clean(to), "/")
	if to == "" || to == "." || i.seen[to] {
		return nil
	}
	if above := filepath.Dir(to); above != "." {
		if err := i.add(above, entry{mode: unix.S_IFDIR | 0o755}); err != nil {
			return err
		}
	}
	i.seen[to] = true
	e.name = to
	return i.archive.add(e)
}
