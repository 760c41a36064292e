// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PIDFile is the content of conmgr.pid, one line each: process id, directory,
// start in seconds since the Unix epoch, port, and what tells the process from a
// later one with the same id: the boot's id and the process's start in ticks.
type PIDFile struct {
	PID       int
	Directory string
	Started   time.Time
	Port      uint16
	Process   string // "boot id:ticks", see proc(5): starttime
}

// ErrRunning is returned by Claim when another conmgr has the directory.
var ErrRunning = errors.New("another conmgr is running")

// Claim makes the calling process the conmgr of the directory: it takes the lock
// and writes conmgr.pid. What a dead conmgr left behind is replaced. Of two that
// start at once one gets an error that wraps [ErrRunning]. The lock ends with the
// process; Release ends it earlier.
func (d *Directory) Claim(port uint16, started time.Time) error {
	lock, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := flock(lock); err != nil {
		_ = lock.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", lock.Name(), err)
		}
		return fmt.Errorf("directory %s: %w%s", d.path, ErrRunning, d.runningNote())
	}
	if err := d.writePID(port, started); err != nil {
		_ = lock.Close()
		return err
	}
	d.lock = lock
	return nil
}

// flock takes the lock or fails at once. A signal may interrupt it.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writePID runs under the lock. A live process in the pid file can then only be a
// conmgr whose lock file was removed by hand.
func (d *Directory) writePID(port uint16, started time.Time) error {
	if old, running, err := d.Running(); err == nil && running && old.PID != os.Getpid() {
		return fmt.Errorf("directory %s: %w (PID: %d)", d.path, ErrRunning, old.PID)
	}
	process, err := processIdentity(os.Getpid())
	if err != nil {
		return fmt.Errorf("read own process start: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n%s\n%d\n%d\n%s\n", os.Getpid(), d.path, started.Unix(), port, process)
	return d.WriteFile(PIDName, b.Bytes())
}

func (d *Directory) runningNote() string {
	p, running, err := d.Running()
	if err != nil || !running {
		return ""
	}
	return fmt.Sprintf(" (PID: %d)", p.PID)
}

// Release removes conmgr.pid and gives the directory up. Without a Claim it does
// nothing.
func (d *Directory) Release() error {
	if d.lock == nil {
		return nil
	}
	err := os.Remove(d.PIDPath())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, d.lock.Close())
	d.lock = nil
	return err
}

// Running reads conmgr.pid and reports whether the process in it still runs. A
// file of a dead process, or whose process id went to another process or belongs
// to an earlier boot, is not running. The error is for a file that is there and
// cannot be understood.
func (d *Directory) Running() (PIDFile, bool, error) {
	text, err := d.ReadFile(PIDName, 8192)
	if errors.Is(err, fs.ErrNotExist) {
		return PIDFile{}, false, nil
	}
	if err != nil {
		return PIDFile{}, false, err
	}
	p, err := parsePIDFile(string(text))
	if err != nil {
		return PIDFile{}, false, fmt.Errorf("%s: %w", d.PIDPath(), err)
	}
	return p, p.Alive(), nil
}

// Alive reports whether the very process that wrote the file still runs.
func (p PIDFile) Alive() bool {
	process, err := processIdentity(p.PID)
	return err == nil && process == p.Process
}

func parsePIDFile(text string) (PIDFile, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 5 {
		return PIDFile{}, fmt.Errorf("expected 5 lines, found %d", len(lines))
	}
	pid, err := strconv.ParseInt(lines[0], 10, 32)
	if err != nil || pid <= 0 {
		return PIDFile{}, fmt.Errorf("line 1: expected a process id, found %.40q", lines[0])
	}
	started, err := strconv.ParseInt(lines[2], 10, 64)
	if err != nil {
		return PIDFile{}, fmt.Errorf("line 3: expected seconds since 1970, found %.40q", lines[2])
	}
	port, err := strconv.ParseUint(lines[3], 10, 16)
	if err != nil {
		return PIDFile{}, fmt.Errorf("line 4: expected a port, found %.40q", lines[3])
	}
	return PIDFile{
		PID:       int(pid),
		Directory: lines[1],
		Started:   time.Unix(started, 0),
		Port:      uint16(port),
		Process:   lines[4],
	}, nil
}

// processIdentity returns what no two processes share: the boot's id and the
// start of the process in ticks since then (field 22 of /proc/pid/stat; the
// command in field 2 may hold anything, so the count starts at its last ")"). A
// zombie has ended.
func processIdentity(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const state, start = 0, 22 - 3 // the first one left is field 3
	if len(fields) <= start {
		return "", fmt.Errorf("/proc/%d/stat: expected at least 22 fields", pid)
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return strings.TrimSpace(string(boot)) + ":" + fields[start], nil
}

// readFull reads up to len(buf) bytes; the end of the file is no error.
func readFull(r io.Reader, buf []byte) (int, error) {
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
