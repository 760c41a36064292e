// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// attr makes a struct rtattr with its padding.
func attr(kind uint16, value ...byte) []byte {
	n := 4 + len(value)
	b := append([]byte{byte(n), byte(n >> 8), byte(kind), byte(kind >> 8)}, value...)
	return append(b, make([]byte, align4(n)-n)...)
}

// linkMessage makes a netlink message with a struct ifinfomsg (little endian).
func linkMessage(kind uint16, family byte, index byte, flags uint32, attributes ...[]byte) []byte {
	body := []byte{family, 0, 1, 0, index, 0, 0, 0, byte(flags), byte(flags >> 8), byte(flags >> 16), 0, 0, 0, 0, 0}
	body = append(body, slices.Concat(attributes...)...)
	n := 16 + len(body)
	head := []byte{byte(n), byte(n >> 8), 0, 0, byte(kind), byte(kind >> 8), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	return append(head, body...)
}

func name(s string) []byte { return attr(unix.IFLA_IFNAME, append([]byte(s), 0)...) }

func kindOf(s string) []byte {
	return attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, attr(unix.IFLA_INFO_KIND, append([]byte(s), 0)...)...)
}

const upAndRunning = unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING

func TestParseDevice(t *testing.T) {
	t.Parallel()
	below := attr(unix.IFLA_LINK, 2, 0, 0, 0)
	elsewhere := attr(unix.IFLA_LINK_NETNSID, 0, 0, 0, 0)
	for _, c := range []struct {
		name  string
		flags uint32
		parts [][]byte
		want  device
	}{
		{"up", upAndRunning, [][]byte{name("eth0")}, device{name: "eth0", up: true, carrier: true, running: true}},
		{"no carrier", unix.IFF_UP, [][]byte{name("eth0")}, device{name: "eth0", up: true}},
		{"lo", unix.IFF_LOOPBACK, [][]byte{name("lo"), attr(unix.IFLA_ADDRESS, 0, 0, 0, 0, 0, 0)}, device{name: "lo", loopback: true}},
		{"address", 0, [][]byte{name("t"), attr(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 0xfe)}, device{name: "t", address: "02:00:00:00:00:fe"}},
		{"vlan", 0, [][]byte{name("v"), below, kindOf("vlan")}, device{name: "v", parent: 2}},
		{"vlan of another namespace", 0, [][]byte{name("v"), below, kindOf("vlan"), elsewhere}, device{name: "v"}},
		{"veth", 0, [][]byte{name("v"), below, kindOf("veth")}, device{name: "v"}},
		{"an unknown attribute", 0, [][]byte{attr(4000, 1, 2, 3), name("x")}, device{name: "x"}},
	} {
		body := linkMessage(unix.RTM_NEWLINK, 0, 7, c.flags, c.parts...)[16:]
		c.want.index = 7
		if got, err := parseDevice(body); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestParseDeviceRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, hex string }{
		{"nothing", ""},
		{"half a header", "00000100 07000000 00"},
		{"an attribute longer than the message", "00000100 07000000 00000000 00000000 0900 0300 61"},
		{"an attribute shorter than its header", "00000100 07000000 00000000 00000000 0300 0300"},
		{"half a number", "00000100 07000000 00000000 00000000 0600 0500 0200 0000"},
		{"a broken part", "00000100 07000000 00000000 00000000 0800 1280 0900 0100"},
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseDevice(body); err == nil {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
}

func TestNews(t *testing.T) {
	t.Parallel()
	link := linkMessage(unix.RTM_NEWLINK, 0, 7, upAndRunning, name("eth0"))
	for _, c := range []struct {
		name     string
		datagram []byte
		devices  int
		routes   bool
		all      bool
	}{
		{"link", link, 1, false, false},
		{"two links", slices.Concat(link, link), 2, false, false},
		{"removal", linkMessage(unix.RTM_DELLINK, 0, 7, 0, name("eth0")), 1, false, false},
		{"a bridge forgets a port", linkMessage(unix.RTM_DELLINK, unix.AF_BRIDGE, 7, 0, name("eth0")), 0, false, false},
		{"route", linkMessage(unix.RTM_NEWROUTE, 2, 0, 0), 0, true, false},
		{"address", linkMessage(unix.RTM_DELADDR, 2, 0, 0), 0, true, false},
		{"rule", linkMessage(unix.RTM_NEWRULE, 2, 0, 0), 0, true, false},
		{"next hop", linkMessage(unix.RTM_DELNEXTHOP, 2, 0, 0), 0, true, false},
		{"something else", linkMessage(unix.RTM_NEWNEIGH, 2, 0, 0), 0, false, false},
		{"cut off", link[:len(link)-4], 0, false, true},
		{"broken link", linkMessage(unix.RTM_NEWLINK, 0, 7, 0, []byte{3, 0, 3, 0}), 0, false, true},
	} {
		var n news
		n.add(c.datagram)
		if len(n.devices) != c.devices || n.routes != c.routes || n.all != c.all {
			t.Errorf("%s: got %+v", c.name, n)
		}
	}
}

// A flood of messages that nobody takes becomes one order to read all again.
func TestNewsAreBounded(t *testing.T) {
	t.Parallel()
	var n news
	link := linkMessage(unix.RTM_NEWLINK, 0, 7, upAndRunning, name("eth0"))
	for range newsMax {
		n.add(link)
	}
	if n.all || len(n.devices) != newsMax {
		t.Fatalf("%d kept, all %v", len(n.devices), n.all)
	}
	n.add(link)
	n.add(link)
	if !n.all || n.devices != nil {
		t.Errorf("%d kept, all %v", len(n.devices), n.all)
	}
}

// FuzzNews: whatever comes, nothing panics, and nothing is made out of nothing.
func FuzzNews(f *testing.F) {
	f.Add(linkMessage(unix.RTM_NEWLINK, 0, 7, upAndRunning, name("eth0"), attr(unix.IFLA_LINK, 2, 0, 0, 0), kindOf("vlan")))
	f.Add(linkMessage(unix.RTM_DELLINK, 0, 7, 0, name("eth0"), attr(unix.IFLA_ADDRESS, 2, 0, 0, 0, 0, 1)))
	f.Add(linkMessage(unix.RTM_NEWROUTE, 2, 0, 0))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		var n news
		n.add(datagram)
		if len(n.devices) > len(datagram)/32 {
			t.Errorf("%d devices in %d bytes", len(n.devices), len(datagram))
		}
		for _, d := range n.devices {
			if len(d.device.name)+len(d.device.address)/3 > len(datagram) {
				t.Errorf("%+v from %d bytes", d, len(datagram))
			}
		}
	})
}
