// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bytes"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Packet is one packet with payload, as somebody who reads the path sees it.
type Packet struct {
	At       mono.Instant // the kernel's time
	Src, Dst netip.AddrPort
	Sent     bool   // by the host that is watched
	From     *Host  // who really sent it, whatever Src says; nil for none of the lab's
	Payload  []byte // cut short where the packet has more than 256 bytes
}

// traceMax bounds what a trace keeps, in packets.
const traceMax = 1 << 16

// trace keeps the packets between a host and one peer.
type trace struct {
	peer    netip.Addr
	packets []Packet
}

func (t *trace) add(p Packet) {
	if p.Src.Addr() != t.peer && p.Dst.Addr() != t.peer || len(t.packets) == traceMax {
		return
	}
	p.Payload = bytes.Clone(p.Payload)
	t.packets = append(t.packets, p)
}

// packet puts together what is known; its payload is part of raw.
func (c *Capture) packet(raw []byte, p packet, at mono.Instant, link *unix.SockaddrLinklayer) Packet {
	begin := min(p.offset, len(raw))
	return Packet{
		At: at, Sent: link.Pkttype == unix.PACKET_OUTGOING, From: c.sender(link),
		Src: netip.AddrPortFrom(p.src, p.srcPort), Dst: netip.AddrPortFrom(p.dst, p.dstPort),
		Payload: raw[begin:min(len(raw), begin+p.payload)],
	}
}

// hand gives a packet to who asks for them.
func (c *Capture) hand(p Packet) {
	if c.each != nil {
		c.each(p)
	}
	if c.trace != nil {
		c.trace.add(p)
	}
}

// sender knows the lab's hosts by their hardware addresses.
func (c *Capture) sender(link *unix.SockaddrLinklayer) *Host {
	for _, h := range c.hosts {
		if net.HardwareAddr(link.Addr[:link.Halen]).String() == h.mac() {
			return h
		}
	}
	return nil
}

// Trace keeps every packet with payload from or to the peer from now on; what an
// earlier Trace has kept is forgotten.
func (c *Capture) Trace(peer netip.Addr) error {
	if _, err := c.look(c.received, peer); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace = &trace{peer: peer}
	return nil
}

// Traced returns what was kept since Trace, in order.
func (c *Capture) Traced() ([]Packet, error) {
	if _, err := c.look(c.received, netip.Addr{}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trace == nil {
		return nil, nil
	}
	return slices.Clone(c.trace.packets), nil
}
