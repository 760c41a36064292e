// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of the files in conmgr's directory, besides [ConfigName].
const (
	PIDName    = "conmgr.pid"  // who runs here, see PIDFile
	SocketName = "conmgr.sock" // Unix socket of cm_ctl, 0600
	LogName    = "conmgr.log"  // stderr of a detached conmgr
	idName     = "conmgr.id"   // who this conmgr is to watchdogs, for ever
	lockName   = "conmgr.lock" // flock: at most one conmgr
)

// maxSocketPath is what sockaddr_un holds with its closing NUL (unix(7)).
const maxSocketPath = 107

// Directory is conmgr's directory, the CMDATA of the seed: one per conmgr. All its
// methods may be called concurrently, except Claim and Release.
type Directory struct {
	path string
	lock *os.File // held from Claim to Release
}

// OpenDirectory checks that path can serve as conmgr's directory: it exists, is a
// directory, belongs to the effective user, who may read, write and enter it, and
// not everybody may write to it. It changes nothing.
func OpenDirectory(path string) (*Directory, error) {
	if path == "" {
		return nil, errors.New("no directory: expected -D or the environment variable CMDATA")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", path, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("directory %s: %w", path, errors.Unwrap(err))
	}
	if err := checkDirectory(info); err != nil {
		return nil, fmt.Errorf("directory %s: %w", path, err)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, abs, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("directory %s: expected to be allowed to read, write and enter it: %w", path, err)
	}
	d := &Directory{path: abs}
	if n := len(d.SocketPath()); n > maxSocketPath {
		return nil, fmt.Errorf("directory %s: the path of its socket has %d bytes: expected at most %d", path, n, maxSocketPath)
	}
	return d, nil
}

func checkDirectory(info fs.FileInfo) error {
	if !info.IsDir() {
		return errors.New("expected a directory")
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("mode %04o lets everybody write to it: expected 0700 or 0750", info.Mode().Perm())
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if euid := os.Geteuid(); int(owner) != euid {
		return fmt.Errorf("owner is user %d: expected user %d, who runs this", owner, euid)
	}
	return nil
}

// Path returns the absolute path of the directory.
func (d *Directory) Path() string { return d.path }

// ConfigPath returns the path of conmgr.conf.
func (d *Directory) ConfigPath() string { return filepath.Join(d.path, ConfigName) }

// SocketPath returns the path of cm_ctl's socket.
func (d *Directory) SocketPath() string { return filepath.Join(d.path, SocketName) }

// LogPath returns the path of the file that takes a detached conmgr's stderr.
func (d *Directory) LogPath() string { return filepath.Join(d.path, LogName) }

// PIDPath returns the path of the pid file.
func (d *Directory) PIDPath() string { return filepath.Join(d.path, PIDName) }

// ID returns the lasting identity of this conmgr, which watchdogs know it by. The
// first call in a directory draws it; a damaged file is an error, since another
// identity would make this conmgr a stranger to its own sessions.
func (d *Directory) ID() ([16]byte, error) {
	text, err := d.ReadFile(idName, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return d.newID()
	}
	if err != nil {
		return [16]byte{}, err
	}
	var id [16]byte
	raw, err := hex.DecodeString(strings.TrimSuffix(string(text), "\n"))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%s: expected %d hexadecimal digits; remove the file to become a new conmgr", filepath.Join(d.path, idName), 2*len(id))
	}
	return [16]byte(raw), nil
}

func (d *Directory) newID() ([16]byte, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return id, fmt.Errorf("draw an identity: %w", err)
	}
	return id, d.WriteFile(idName, []byte(hex.EncodeToString(id[:])+"\n"))
}

// ReadFile returns the content of a small file in the directory. More than limit
// bytes are an error; a file that is not there is [fs.ErrNotExist].
func (d *Directory) ReadFile(name string, limit int) ([]byte, error) {
	path := filepath.Join(d.path, name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, limit+1)
	n, err := readFull(f, buf)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if n > limit {
		return nil, fmt.Errorf("read %s: expected at most %d bytes", path, limit)
	}
	return buf[:n], nil
}

// WriteFile replaces a file in the directory as a whole (mode 0600): a reader, or
// the next start after a crash, sees the old or the new content.
func (d *Directory) WriteFile(name string, data []byte) error {
	path := filepath.Join(d.path, name)
	f, err := os.CreateTemp(d.path, name+".tmp*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return d.sync()
}

// sync makes a rename last (fsync(2) on the directory).
func (d *Directory) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.path, err)
	}
	return errors.Join(f.Sync(), f.Close())
}
