// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ProvePidfd finds out whether the agent can watch the life of the process at the
// other end of a Unix socket, here its own. direct: the kernel gives the pidfd itself
// (SO_PEERPIDFD, Linux 6.5), so that the pid cannot have become somebody else's.
func ProvePidfd() (direct bool, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("socketpair: %w", err)
	}
	defer func() { _, _ = unix.Close(pair[0]), unix.Close(pair[1]) }()
	p, err := peerPostmaster(pair[0])
	if err != nil {
		return false, err
	}
	defer p.close()
	if p.ended() {
		return p.direct, fmt.Errorf("pidfd of %d: the process, which runs, is said to have ended", p.pid)
	}
	return p.direct, nil
}

// ProveDirectory finds out whether the agent can watch a directory as it does the
// data directory.
func ProveDirectory(path string) error {
	w, err := watchPidFile(path)
	if err != nil {
		return err
	}
	w.close()
	return nil
}
