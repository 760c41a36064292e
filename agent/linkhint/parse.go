// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// stacked are the kinds that lose their carrier with the device of IFLA_LINK, but
// only after the throttle (netif_stacked_transfer_operstate). The IFLA_LINK of a
// veth is its other end, whose carrier says nothing of this one.
var stacked = []string{"vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"}

var errShort = errors.New("too short")

// typeMask takes the flags off an attribute's type (NLA_TYPE_MASK).
const typeMask = 1<<14 - 1

// parseDevice reads the body of an RTM_NEWLINK or RTM_DELLINK. The library's
// reader takes all of it apart, and trusts the lengths of its parts.
func parseDevice(body []byte) (device, error) {
	if len(body) < unix.SizeofIfInfomsg {
		return device{}, fmt.Errorf("parse device: %w", errShort)
	}
	// struct ifinfomsg: family, pad, type (2), index (4), flags (4), change (4).
	flags := binary.NativeEndian.Uint32(body[8:])
	d := device{
		index:    int(int32(binary.NativeEndian.Uint32(body[4:]))),
		up:       flags&unix.IFF_UP != 0,
		carrier:  flags&unix.IFF_LOWER_UP != 0,
		running:  flags&unix.IFF_RUNNING != 0,
		loopback: flags&unix.IFF_LOOPBACK != 0,
	}
	if err := d.parseAttributes(body[unix.SizeofIfInfomsg:]); err != nil {
		return device{}, fmt.Errorf("parse device %d: %w", d.index, err)
	}
	return d, nil
}

func (d *device) parseAttributes(data []byte) error {
	kind, below, elsewhere := "", 0, false
	for a, err := range attributes(data) {
		if err != nil {
			return err
		}
		switch a.kind {
		case unix.IFLA_IFNAME:
			d.name = text(a.value)
		case unix.IFLA_ADDRESS:
			if slices.ContainsFunc(a.value, func(b byte) bool { return b != 0 }) {
				d.address = net.HardwareAddr(a.value).String()
			}
		case unix.IFLA_LINK:
			if len(a.value) < 4 {
				return errShort
			}
			below = int(int32(binary.NativeEndian.Uint32(a.value)))
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_LINKINFO:
			if kind, err = parseKind(a.value); err != nil {
				return err
			}
		}
	}
	if !elsewhere && slices.Contains(stacked, kind) {
		d.parent = below
	}
	return nil
}

func parseKind(data []byte) (kind string, err error) {
	for a, err := range attributes(data) {
		if err != nil {
			return "", err
		}
		if a.kind == unix.IFLA_INFO_KIND {
			kind = text(a.value)
		}
	}
	return kind, nil
}

// text is a string that ends with a zero byte.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// attribute is a struct rtattr, or a netlink message: both are a length with the
// header, a type and what follows, at the next multiple of four.
type attribute struct {
	kind  uint16
	value []byte // belongs to what was parsed
}

// attributes yields them until the end or the first error. What is too short for
// one more is padding.
func attributes(data []byte) iter.Seq2[attribute, error] {
	return func(yield func(attribute, error) bool) {
		for len(data) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(data))
			if n < unix.SizeofRtAttr || n > len(data) {
				yield(attribute{}, errShort)
				return
			}
			a := attribute{kind: binary.NativeEndian.Uint16(data[2:]) & typeMask, value: data[unix.SizeofRtAttr:n]}
			if !yield(a, nil) {
				return
			}
			data = data[min(align4(n), len(data)):]
		}
	}
}

// messages yields the netlink messages of a datagram in the same way.
func messages(data []byte) iter.Seq2[attribute, error] {
	return func(yield func(attribute, error) bool) {
		for len(data) >= unix.SizeofNlMsghdr {
			n := int(min(binary.NativeEndian.Uint32(data), 1<<30))
			if n < unix.SizeofNlMsghdr || n > len(data) {
				yield(attribute{}, errShort)
				return
			}
			m := attribute{kind: binary.NativeEndian.Uint16(data[4:]), value: data[unix.SizeofNlMsghdr:n]}
			if !yield(m, nil) {
				return
			}
			data = data[min(align4(n), len(data)):]
		}
	}
}

func align4(n int) int { return (n + 3) &^ 3 }
