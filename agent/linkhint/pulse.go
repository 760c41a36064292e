// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pulse is a timer of the kernel (timerfd_create(2)) that a goroutine waits for as for
// a socket, in the runtime's poller. For each tick of a time.Ticker the runtime of a
// process that has nothing else to do wakes three threads: the one that waits, another
// to look for more work, and its watchman (sysmon in proc.go), which then looks around
// every 20 us for a while.
type pulse struct {
	file *os.File
	raw  syscall.RawConn
}

// newPulse makes one that does not beat.
func newPulse() (*pulse, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create timerfd: %w", err)
	}
	p := &pulse{file: os.NewFile(uintptr(fd), "timerfd")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("use timerfd: %w", err), p.file.Close())
	}
	return p, nil
}

// set lets it beat from now on; 0 stops it.
func (p *pulse) set(every time.Duration) error {
	spec := unix.NsecToTimespec(int64(every))
	var setErr error
	err := p.raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil)
	})
	if err = errors.Join(err, setErr); err != nil {
		return fmt.Errorf("set timerfd: %w", err)
	}
	return nil
}

// wait waits for the next beat. It fails after close.
func (p *pulse) wait() error { return p.raw.Read(beaten) }

// beaten takes the beats of a timerfd; false when there was none. See pread.
func beaten(fd uintptr) bool {
	var beats uint64
	_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&beats)), unsafe.Sizeof(beats))
	return errno != unix.EAGAIN
}

// close ends wait.
func (p *pulse) close() error { return p.file.Close() }
