// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a fault, which thousands of connections get in a row. None of
// them waits for anything, so Go's scheduler is not told of them: told, it takes the
// processor from who is in a system call for long (sysmon in runtime/proc.go), gives
// it to somebody else, and the fault goes on when that one is done.

// quickSend writes what the socket takes at once.
func quickSend(fd int, b []byte, flags int) error {
	if len(b) == 0 {
		return nil
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL), 0, 0)
	return errorOf(errno)
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
