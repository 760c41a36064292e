// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answerWithin is far more than the kernel needs: it answers within the call.
const answerWithin = 5 * time.Second

// kernel asks the kernel for the present state of the namespace that it was opened
// in. It belongs to one goroutine.
type kernel struct {
	socket *nl.NetlinkSocket
	links  map[int]*nl.SocketHandle // the same, as the library wants it
	routes *netlink.Handle
}

func openKernel() (*kernel, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink for links: %w", err)
	}
	limit := unix.NsecToTimeval(answerWithin.Nanoseconds())
	_ = s.SetReceiveTimeout(&limit) // only stores it
	routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open rtnetlink for routes: %w", err)
	}
	_ = routes.SetSocketTimeout(answerWithin)
	return &kernel{
		socket: s, links: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}, routes: routes,
	}, nil
}

func (k *kernel) close() {
	k.socket.Close()
	k.routes.Close()
}

// withoutStatistics is RTEXT_FILTER_SKIP_STATS (rtnetlink.h, Linux 4.4). The
// virtual functions are left out as well: some cards ask their firmware for them.
const withoutStatistics = 1 << 3

// getLink makes an RTM_GETLINK for one device, or for all (0).
func (k *kernel) getLink(index int) *nl.NetlinkRequest {
	flags := 0
	if index == 0 {
		flags = unix.NLM_F_DUMP
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, flags)
	request.Sockets = k.links
	info := nl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	request.AddData(info)
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(withoutStatistics)))
	return request
}

// device looks at one device now; found is false when there is none.
func (k *kernel) device(index int) (d device, found bool, err error) {
	if index <= 0 {
		return device{}, false, nil
	}
	answers, err := k.getLink(index).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	switch {
	case errors.Is(err, unix.ENODEV):
		return device{}, false, nil
	case err != nil:
		return device{}, false, fmt.Errorf("look at device %d: %w", index, err)
	case len(answers) == 0:
		return device{}, false, fmt.Errorf("look at device %d: no answer", index)
	}
	d, err = parseDevice(answers[0])
	return d, err == nil, err
}

// interruptions is how often all devices are read again when they change in the
// meantime (NLM_F_DUMP_INTR). What is still missing then comes as news.
const interruptions = 3

// devices looks at all.
func (k *kernel) devices() (found []device, err error) {
	var answers [][]byte
	for range interruptions {
		answers, err = k.getLink(0).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, fmt.Errorf("read all devices: %w", err)
	}
	for _, answer := range answers {
		d, err := parseDevice(answer)
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, nil
}
