// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Packet is one packet with payload, as somebody who reads the path sees it.
type Packet struct {
	At       mono.Instant // the kernel's time
	Src, Dst netip.AddrPort
	Sent     bool   // by the host that is watched
	Payload  []byte // cut short where the packet has more than 256 bytes
}

// traceMax bounds what a trace keeps, in packets.
const traceMax = 1 << 16

// trace keeps the packets between a host and one peer.
type trace struct {
	peer    netip.Addr
	packets []Packet
}

func (t *trace) add(packet []byte, p packet, at mono.Instant, outgoing bool) {
	if t == nil || p.src != t.peer && p.dst != t.peer || len(t.packets) == traceMax || p.offset > len(packet) {
		return
	}
	t.packets = append(t.packets, Packet{
		At: at, Sent: outgoing,
		Src: netip.AddrPortFrom(p.src, p.srcPort), Dst: netip.AddrPortFrom(p.dst, p.dstPort),
		Payload: bytes.Clone(packet[p.offset:min(len(packet), p.offset+p.payload)]),
	})
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
