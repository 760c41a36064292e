// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTap makes a tap device in the namespace of the thread. It goes with the file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openTapIn is openTap in a namespace.
func openTapIn(s *space, name string) (tap *os.File, err error) {
	err = s.do(func() (err error) {
		tap, err = openTap(name)
		return err
	})
	return tap, err
}

// setCarrier gives a tap its carrier or takes it (Linux 5.0).
func setCarrier(tap *os.File, on bool) error {
	raw, err := tap.SyscallConn()
	if err != nil {
		return err
	}
	value := 0
	if on {
		value = 1
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.IoctlSetPointerInt(int(fd), unix.TUNSETCARRIER, value) }); err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("set carrier of %s to %t: %w", tap.Name(), on, set)
	}
	return nil
}
