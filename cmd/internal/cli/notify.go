// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier tells the service manager how the program is, by the protocol of
// sd_notify(3). No method waits: a service manager that does not read misses the
// message. Its methods may be called concurrently; nil tells nobody. It lives as long as
// the process.
type Notifier struct {
	fd int
	to string // path, or a name that begins with @
}

// NewNotifier returns nil when no service manager asks for notifications, and what
// is asked for is none of a child's business then.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket to the service manager: %w", err)
	}
	return &Notifier{fd: fd, to: path}, nil
}

// send sends assignments, one per line, with descriptors to copy.
func (n *Notifier) send(text string, fds ...int) error {
	if n == nil {
		return nil
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(n.fd, []byte(text), rights, &unix.SockaddrUnix{Name: n.to}, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// Ready says that the program serves.
func (n *Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Stopping says that the program ends.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Alive says that the program does not hang; see AliveEvery.
func (n *Notifier) Alive() error { return n.send(daemon.SdNotifyWatchdog) }

// Status is one line for people, which systemctl status shows.
func (n *Notifier) Status(line string) error { return n.send("STATUS=" + line) }

// Keep implements peer.SocketKeeper with the fd store of systemd, which hands the
// descriptors to the next process of the unit (FileDescriptorStoreMax=). One that
// it has already is not kept twice. It is not to look at them: it would drop a
// socket that has an error to tell.
func (n *Notifier) Keep(name string, fd int) {
	_ = n.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

// Forget implements peer.SocketKeeper.
func (n *Notifier) Forget(name string) { _ = n.send("FDSTOREREMOVE=1\nFDNAME=" + name) }

// AliveEvery returns how often Alive is to be called, so that the service manager
// does not take the program for hung (WatchdogSec=): three times as often as it
// looks. 0 means that it does not look.
func AliveEvery() (time.Duration, error) {
	limit, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return 0, fmt.Errorf("what the service manager asks for: %w", err)
	}
	return limit / 3, nil
}

// TakeDescriptors returns the descriptors that the service manager handed to this
// process. They are the caller's.
func TakeDescriptors() ([]int, error) {
	var fds []int
	var failed error
	for _, f := range activation.Files(true) {
		// A copy: the file closes its own when it is collected.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		failed = errors.Join(failed, err, f.Close())
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds, failed
}
