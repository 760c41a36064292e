// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a fault, which thousands of connections get in a row, and of
// relays, which make two for each message. None of them waits for anything, but
// quickWait and quickPause for a moment, so Go's scheduler is not told of them: told, it
// takes the processor from who is in a system call for long (sysmon in runtime/proc.go)
// and gives it to somebody else.

// quickSend writes what the socket takes at once; flags are those of send(2).
func quickSend(fd int, b []byte, flags int) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// quickFinish sends FIN behind what was written.
func quickFinish(fd int) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errorOf(errno)
}

// quickUnsent returns how many bytes the peer has not acknowledged (SIOCOUTQ, tcp(7)).
func quickUnsent(fd int) (int, error) {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	return int(n), errorOf(errno)
}

func errorOf(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// quickReset breaks a connection with RST and leaves the socket open: to connect it to
// nobody is to disconnect it (connect(2), AF_UNSPEC).
func quickReset(fd int) error {
	var nobody unix.RawSockaddr // AF_UNSPEC is 0
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	return errorOf(errno)
}

// quickRead reads what is there: 0 is the end, EAGAIN nothing.
func quickRead(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// quickWait is epoll_wait for a moment, in whole milliseconds. It returns 0 when no event
// has come, and after a signal: that is how Go's scheduler stops whom it does not know to
// be in a system call.
func quickWait(epoll int, events []unix.EpollEvent, moment time.Duration) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(moment.Milliseconds()), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// quickPause sleeps for a moment; a signal that cuts it short does no harm.
func quickPause(moment time.Duration) {
	ts := unix.NsecToTimespec(int64(moment))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
