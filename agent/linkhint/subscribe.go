// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// groups are what is subscribed to. A kernel without one of them ignores it.
var groups = []int{
	unix.RTNLGRP_LINK,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
}

// receiveBuffer is asked for, in bytes. Without CAP_NET_ADMIN the kernel gives at
// most net.core.rmem_max, and what does not fit is an overrun.
const receiveBuffer = 1 << 20

// messageMax is more than the kernel puts into one multicast message.
const messageMax = 64 << 10

// newsMax bounds the device messages that wait; beyond it all is read again.
const newsMax = 1024

// news is what rtnetlink has told since it was taken last.
type news struct {
	devices []deviceNews
	routes  bool // routes, addresses, rules or next hops changed
	all     bool // something was missed: read all again
}

// deviceNews is an RTM_NEWLINK, or an RTM_DELLINK: gone.
type deviceNews struct {
	device device
	gone   bool
}

// subscription reads rtnetlink's news on a goroutine of its own. It never waits
// for who takes them: a flood of routes ends as one flag.
type subscription struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
	wake chan struct{} // there are news, or the end

	mu      sync.Mutex // guards the following
	pending news
	err     error // why reading has ended
}

// subscribe opens the socket in the namespace of the calling thread.
func subscribe() (*subscription, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	address := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	for _, g := range groups {
		address.Groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, address); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as there is
	}
	s := &subscription{file: os.NewFile(uintptr(fd), "rtnetlink"), buf: make([]byte, messageMax), wake: make(chan struct{}, 1)}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return s, nil
}

// close ends run.
func (s *subscription) close() error {
	if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close rtnetlink: %w", err)
	}
	return nil
}

// run reads until close.
func (s *subscription) run() {
	err := s.read()
	s.mu.Lock()
	s.err = fmt.Errorf("read rtnetlink: %w", err)
	s.mu.Unlock()
	s.signal()
}

// read never ends well.
func (s *subscription) read() error {
	for {
		var failed error
		err := s.raw.Read(func(fd uintptr) (done bool) {
			done, failed = s.drain(int(fd))
			return done
		})
		if err := errors.Join(failed, err); err != nil {
			return err
		}
	}
}

// atOnce bounds how many messages are read before close can come in between.
const atOnce = 64

// drain reads some of what is there; some is false when there was nothing.
func (s *subscription) drain(fd int) (some bool, err error) {
	for range atOnce {
		// With MSG_TRUNC n is the length of the message, whether it fits or not.
		n, from, err := unix.Recvfrom(fd, s.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return some, nil
		case errors.Is(err, unix.ENOBUFS):
			s.tell(func(p *news) { p.all = true })
		case err != nil:
			return true, err
		case !isKernel(from): // another process
		case n > len(s.buf):
			s.tell(func(p *news) { p.all = true })
		default:
			s.tell(func(p *news) { p.add(s.buf[:n]) })
		}
		some = true
	}
	return true, nil
}

func isKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == nl.PidKernel
}

// tell adds to the news and wakes who waits for them.
func (s *subscription) tell(add func(*news)) {
	s.mu.Lock()
	add(&s.pending)
	any := s.pending.all || s.pending.routes || len(s.pending.devices) > 0
	s.mu.Unlock()
	if any {
		s.signal()
	}
}

func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default: // the news are taken together with those before
	}
}

// take returns the news since the last call; err is why no more can come.
func (s *subscription) take() (n news, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, s.pending = s.pending, news{}
	return n, s.err
}

// add parses one datagram of the kernel.
func (n *news) add(datagram []byte) {
	for m, err := range messages(datagram) {
		if err != nil {
			n.all = true
			return
		}
		switch m.kind {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			n.addDevice(m.kind == unix.RTM_DELLINK, m.value)
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWADDR, unix.RTM_DELADDR,
			unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
			n.routes = true
		}
	}
}

func (n *news) addDevice(gone bool, body []byte) {
	// The messages of the family AF_BRIDGE tell of ports; an RTM_DELLINK among them
	// says that the device has left the bridge.
	if len(body) > 0 && body[0] != unix.AF_UNSPEC {
		return
	}
	d, err := parseDevice(body)
	if err != nil || len(n.devices) == newsMax {
		n.devices, n.all = nil, true
		return
	}
	if !n.all { // what is read again anyway need not be kept
		n.devices = append(n.devices, deviceNews{device: d, gone: gone})
	}
}
