// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// verbServe makes this program the server. It holds plain descriptors that no
// poller watches: waking the owners is not what is measured.
const verbServe = "serve"

// serving is what the server process has.
type serving struct {
	listener            int
	peer                netip.Addr
	victims, bystanders []int
}

func newServing(addr netip.AddrPort, peer netip.Addr) (*serving, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}); err != nil {
		return nil, fmt.Errorf("bind %v: %w", addr, err)
	}
	return &serving{listener: fd, peer: peer}, unix.Listen(fd, 4096)
}

// Obey accepts n connections; counts survivors and lost bystanders; or closes
// the peer's connections.
func (s *serving) Obey(order string, n int) (string, error) {
	switch order {
	case "accept":
		return "ok", s.accept(n)
	case "count":
		survivors, err := count(s.victims, func(state uint8) bool { return state != unix.BPF_TCP_CLOSE })
		if err != nil {
			return "", err
		}
		lost, err := count(s.bystanders, func(state uint8) bool { return state != unix.BPF_TCP_ESTABLISHED })
		return fmt.Sprintf("%d %d %d %d", len(s.victims), survivors, len(s.bystanders), lost), err
	case "close":
		for _, fd := range s.victims {
			if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
				return "", err
			}
			if err := unix.Close(fd); err != nil {
				return "", err
			}
		}
		s.victims = s.victims[:0]
		return "ok", nil
	}
	return "", fmt.Errorf("unknown order %q", order)
}

func (s *serving) accept(n int) error {
	for range n {
		fd, from, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		client, ok := from.(*unix.SockaddrInet4)
		if !ok {
			return fmt.Errorf("accept: address %T", from)
		}
		if netip.AddrFrom4(client.Addr) == s.peer {
			s.victims = append(s.victims, fd)
		} else {
			s.bystanders = append(s.bystanders, fd)
		}
	}
	return nil
}

// count asks the kernel for the state of each descriptor.
func count(fds []int, is func(state uint8) bool) (n int, err error) {
	for _, fd := range fds {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("TCP_INFO: %w", err)
		}
		if is(info.State) {
			n++
		}
	}
	return n, nil
}
