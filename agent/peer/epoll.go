// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollSet is a set of descriptors that one goroutine waits for:
//
//	blocked -> parked (park)
//	        <- (block)
//
// Who blocks in epoll_wait keeps a processor of Go's scheduler meanwhile. Its watchman
// (sysmon in the runtime's proc.go) takes that away, and looks around every 20 us for a
// while after each time, which costs a quiet daemon more than its heartbeats. Who parks
// waits for the set as for a socket: it is in the set of the runtime's poller. That wakes
// a thread for each event, also for one that comes while the goroutine is busy, which
// costs a busy daemon more than it saves.
type epollSet struct {
	fd int

	parked *os.File // a copy of fd that the runtime's poller knows; nil: it does not
	raw    syscall.RawConn
	ask    func(uintptr) bool // made once

	events []unix.EpollEvent // of the wait that goes on, and what it found
	n      int
	err    error
}

func newEpollSet() (*epollSet, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	e := &epollSet{fd: fd}
	e.ask = func(uintptr) bool {
		e.n, e.err = e.look(e.events)
		return e.n > 0 || e.err != nil
	}
	return e, nil
}

// look returns the events that are there. It does not wait, so the scheduler is not
// told of it.
func (e *epollSet) look(events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	return found(int(n), errno)
}

// found is what epoll_wait says; a signal that cut it short is nothing.
func found(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return n, nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, fmt.Errorf("epoll_wait: %w", errno)
}

// block waits for events, or a signal, in epoll_wait.
func (e *epollSet) block(events []unix.EpollEvent) (int, error) {
	e.unpark()
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
	return found(int(n), errno)
}

// park waits for events in the runtime's poller. Where there is no descriptor for that
// it blocks.
func (e *epollSet) park(events []unix.EpollEvent) (int, error) {
	if e.parked == nil && e.copy() != nil {
		return e.block(events)
	}
	e.events = events
	if err := e.raw.Read(e.ask); err != nil {
		return 0, fmt.Errorf("wait for epoll set: %w", err)
	}
	return e.n, e.err
}

// copy lets the runtime's poller know the set.
func (e *epollSet) copy() error {
	fd, err := unix.FcntlInt(uintptr(e.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("copy descriptor of epoll set: %w", err)
	}
	_ = unix.SetNonblock(fd, true) // tells os.NewFile that it can be waited for
	file := os.NewFile(uintptr(fd), "epoll set")
	if e.raw, err = file.SyscallConn(); err != nil {
		_ = file.Close()
		return fmt.Errorf("use epoll set: %w", err)
	}
	e.parked = file
	return nil
}

func (e *epollSet) unpark() {
	if e.parked != nil {
		_ = e.parked.Close()
		e.parked, e.raw = nil, nil
	}
}

func (e *epollSet) close() {
	e.unpark()
	_ = unix.Close(e.fd)
}
