// SPDX-License-Identifier: Apache-2.0

package client

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// waitHangup returns when the peer has closed or reset the connection, and reads
// nothing.
func waitHangup(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			if n, err := unix.Poll(p, -1); err != unix.EINTR && n != 0 {
				return
			}
		}
	})
}
