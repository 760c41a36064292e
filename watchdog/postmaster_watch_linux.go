// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pidFile is the file that the postmaster writes its status to
// (src/backend/utils/init/miscinit.c, AddToDataDirLockFile).
const pidFile = "postmaster.pid"

// pidFileWatch tells when postmaster.pid of a data directory is written, created
// or removed. What it contains does not matter: a promotion rewrites "ready" with
// "ready". The directory is watched and not the file, which a restart replaces.
type pidFileWatch struct {
	file *os.File
	buf  [16 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)]byte
}

// watchPidFile needs the right to read the data directory. The caller closes what
// it gets.
func watchPidFile(dataDirectory string) (*pidFileWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init: %w", err)
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dataDirectory, events); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("watch %s: %w", dataDirectory, err)
	}
	return &pidFileWatch{file: os.NewFile(uintptr(fd), "inotify")}, nil
}

// wait returns nil when postmaster.pid was touched, and an error when the
// directory is gone or after close.
func (w *pidFileWatch) wait() error {
	for {
		n, err := w.file.Read(w.buf[:])
		if err != nil {
			return err
		}
		touched, gone := scanEvents(w.buf[:n])
		if touched {
			return nil
		}
		if gone {
			return fmt.Errorf("the data directory is gone: %w", os.ErrNotExist)
		}
	}
}

// close ends wait. It may be called more than once.
func (w *pidFileWatch) close() { _ = w.file.Close() }

// scanEvents reads struct inotify_event (inotify(7)): wd, mask, cookie, len, name.
// A lost event may have been one for the file.
func scanEvents(b []byte) (touched, gone bool) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + int64(binary.NativeEndian.Uint32(b[12:]))
		if end > int64(len(b)) {
			break
		}
		name := bytes.TrimRight(b[unix.SizeofInotifyEvent:end], "\x00")
		touched = touched || string(name) == pidFile || mask&unix.IN_Q_OVERFLOW != 0
		gone = gone || mask&unix.IN_IGNORED != 0
		b = b[end:]
	}
	return touched, gone
}
