// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// replace writes a file beside path and renames it over path. It is not flushed to
// a disk: after a crash of the host there is nothing to tell.
func (p *publisher) replace(path string, write func(io.Writer) error) error {
	if err := p.ownDir(); err != nil {
		return err
	}
	// A new file, whatever lies there: O_EXCL follows no link.
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if p.out == nil {
		p.out = bufio.NewWriterSize(nil, 32<<10)
	}
	p.out.Reset(f)
	if err = write(p.out); err == nil {
		err = errors.Join(p.out.Flush(), f.Chmod(0o644)) // whatever the umask
	}
	p.out.Reset(nil)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		_ = os.Remove(next)
	}
	return err
}

// ownDir makes the directory, or makes sure that nobody else can put files there:
// it belongs to root or to the agent's user, who alone may write to it.
func (p *publisher) ownDir() error {
	info, err := os.Lstat(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(p.dir, 0o755); err == nil {
			err = os.Chmod(p.dir, 0o755) // whatever the umask
		}
		if err != nil {
			return err
		}
		info, err = os.Lstat(p.dir)
	}
	if err != nil {
		return err
	}
	return checkRunDir(p.dir, info, os.Geteuid())
}

// checkRunDir finds out whether a directory is one that nobody but root and the user
// self can write to. Root trusts what root has given away.
func checkRunDir(path string, info fs.FileInfo, self int) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s: expected a directory", path)
	case !ok || stat.Uid != 0 && int(stat.Uid) != self && self != 0:
		return fmt.Errorf("%s: expected a directory of the agent's user or root's", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s: mode %04o: expected that only its owner may write to it", path, info.Mode().Perm())
	}
	return nil
}
