// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// postmaster watches the life of one postmaster process by a pidfd. Requires
// Linux 5.3, or 6.5 for a pidfd without a moment in which the pid could be
// somebody else's.
type postmaster struct {
	pid    int
	file   *os.File
	direct bool // the kernel gave the pidfd itself (SO_PEERPIDFD, Linux 6.5)
}

// ErrNotUnix means that a connection does not tell whose postmaster it is.
var ErrNotUnix = errors.New("not a Unix socket")

// openPostmaster finds the process at the other end of a Unix-socket connection.
// That is whoever called listen(2), the postmaster, not the backend that answers.
// The caller closes what it gets.
func openPostmaster(conn net.Conn) (*postmaster, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, ErrNotUnix
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	p, opErr := (*postmaster)(nil), error(nil)
	if err := raw.Control(func(fd uintptr) { p, opErr = peerPostmaster(int(fd)) }); err != nil {
		return nil, err
	}
	return p, opErr
}

func peerPostmaster(fd int) (*postmaster, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	direct := err == nil
	if !direct {
		if cred.Pid <= 0 {
			return nil, errors.New("the postmaster is in another pid namespace")
		}
		// The connection was accepted a moment ago, so the pid is not yet reused.
		if pidfd, err = unix.PidfdOpen(int(cred.Pid), 0); err != nil {
			return nil, fmt.Errorf("pidfd_open %d: %w", cred.Pid, err)
		}
	}
	unix.CloseOnExec(pidfd)
	// Only a non-blocking descriptor is watched by the runtime's poller.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		_ = unix.Close(pidfd)
		return nil, fmt.Errorf("pidfd of %d: %w", cred.Pid, err)
	}
	return &postmaster{pid: int(cred.Pid), file: os.NewFile(uintptr(pidfd), "pidfd"), direct: direct}, nil
}

// wait returns nil when the process has ended, and an error after close.
func (p *postmaster) wait() error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(pidfdEnded)
}

// ended reports whether the process has ended by now.
func (p *postmaster) ended() bool {
	ended := false
	err := onDescriptor(p.file, func(fd uintptr) { ended = pidfdEnded(fd) })
	return err == nil && ended
}

// close ends wait. It may be called more than once.
func (p *postmaster) close() { _ = p.file.Close() }

// pidfdEnded polls without waiting: a pidfd is readable once its process ended.
func pidfdEnded(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

func onDescriptor(c syscall.Conn, f func(fd uintptr)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(f)
}
