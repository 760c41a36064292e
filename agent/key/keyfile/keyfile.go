// SPDX-License-Identifier: Apache-2.0

// Package keyfile reads and writes the key files of agent/key on disk. It refuses
// a file that anybody but its owner could have read or written, since such a key
// proves nothing.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/key"
)

// Load reads a key file. It must be a regular file that belongs to the effective
// user or to root and that nobody else may read, write or execute; a symbolic link
// to one is followed. What is checked is what is read: the open file. Errors name
// the file and never repeat what is in it.
func Load(path string) (*key.Ring, error) { return LoadFor(path, os.Geteuid()) }

// LoadFor is Load for a process of another user, which root may ask about.
func LoadFor(path string, uid int) (*key.Ring, error) {
	f, err := open(path, os.O_RDONLY, uid)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := read(f)
	if err != nil {
		return nil, err
	}
	return key.Parse(path, text)
}

// open does not wait for the other end of a named pipe. The file is to be good for
// that user.
func open(path string, flags, uid int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, cause(err))
	}
	info, err := f.Stat()
	if err == nil {
		err = checkFile(path, info, uid)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("key file %w", err)
	}
	return f, nil
}

// checkFile decides whether a file can hold secrets of a process of that user.
func checkFile(path string, info os.FileInfo, euid int) error {
	owner := -1
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(stat.Uid)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return fmt.Errorf("%s: expected a regular file", path)
	case owner != euid && owner != 0:
		return fmt.Errorf("%s: belongs to user id %d: expected user id %d or root", path, owner, euid)
	case mode.Perm()&0o077 != 0:
		return fmt.Errorf("%s: others have access (mode %04o): expected 0600 or less; use: chmod 600 %s", path, mode.Perm(), path)
	}
	return nil
}

func read(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, key.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", f.Name(), cause(err))
	}
	return text, nil
}

// Create writes a new key file of one line with mode 0600. It never touches a file
// that exists, and leaves none behind when it fails.
func Create(path, line string) error {
	if _, err := key.Parse(path, []byte(line)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("key file %s exists and is not overwritten: expected another name, or --append to add a key to it", path)
	}
	if err != nil {
		return fmt.Errorf("create key file %s: %w", path, cause(err))
	}
	if err := fill(f, line); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("write key file %s: %w", path, cause(err))
	}
	return nil
}

// fill writes and closes. The mode is set again: a file system without modes, or
// an inherited access list, must not widen it unseen.
func fill(f *os.File, line string) error {
	_, err := f.WriteString(line)
	if err == nil {
		err = f.Chmod(0o600)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Append adds a line to a key file that Load accepts, as its last key. The file
// stays as it was when the two together would not be valid, and when writing
// fails. It returns the ring that the file holds now.
func Append(path, line string) (*key.Ring, error) {
	f, err := open(path, os.O_RDWR|os.O_APPEND, os.Geteuid())
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// Two at once would miss each other's id; the lock goes with the descriptor.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock key file %s: %w", path, err)
	}
	text, err := read(f)
	if err != nil {
		return nil, err
	}
	if _, err := key.Parse(path, text); err != nil {
		return nil, err
	}
	if text[len(text)-1] != '\n' {
		line = "\n" + line
	}
	ring, err := key.Parse(path, append(text, line...))
	if err != nil {
		return nil, err
	}
	return ring, grow(f, int64(len(text)), line)
}

// grow appends with one write; what was written of it when that fails is taken
// back.
func grow(f *os.File, size int64, line string) error {
	_, err := f.WriteString(line)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("write key file %s: %w", f.Name(), errors.Join(cause(err), f.Truncate(size)))
	}
	return nil
}

// cause leaves out the path, which the caller names.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
