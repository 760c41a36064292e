// SPDX-License-Identifier: Apache-2.0

// Package unixsock makes Unix sockets of the file system that their owner alone can
// use, and tells who is at the other end of one.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPath is how many bytes the path of a socket can have (sun_path of unix(7),
// which ends with a NUL).
const MaxPath = 107

// Listen binds a socket with mode 0600 from the beginning. One that nobody serves any
// more is replaced; one that is served is an error that is [syscall.EADDRINUSE].
// Closing the listener removes the file.
func Listen(path string) (net.Listener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("listen on %s: a path of %d bytes: expected at most %d", path, len(path), MaxPath)
	}
	config := net.ListenConfig{Control: private}
	l, err := config.Listen(context.Background(), "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && isStale(path) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the stale socket %s: %w", path, err)
		}
		l, err = config.Listen(context.Background(), "unix", path)
	}
	return l, err
}

// private takes the rights of others away before the file is there: bind(2) takes
// the mode of the socket's own inode (af_unix.c).
func private(_, _ string, raw syscall.RawConn) (err error) {
	if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

// isStale reports whether path is a socket that refuses.
func isStale(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Peer is the process that connected, as the kernel knows it.
type Peer struct {
	UID uint32
	PID int32 // 0 when it is in another pid namespace
}

// PeerOf asks the kernel who is at the other end (SO_PEERCRED of unix(7)): who
// connected, or whoever made the socket that was connected to.
func PeerOf(c *net.UnixConn) (p Peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	failed := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = Peer{UID: cred.Uid, PID: cred.Pid}
		}
	})
	return p, errors.Join(failed, err)
}
