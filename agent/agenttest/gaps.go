// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"net/netip"
	"time"
)

// Gaps are the times between one received frame and the next.
type Gaps struct {
	Longest time.Duration
	Late    int // those longer than CountGaps was told
}

func (g *Gaps) add(gap, late time.Duration) {
	g.Longest = max(g.Longest, gap)
	if late > 0 && gap > late {
		g.Late++
	}
}

// CountGaps makes Gaps.Late count the gaps from now on that are longer.
func (c *Capture) CountGaps(longer time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = longer
}

// TakeGaps returns the gaps between frames received from the peer that have
// ended since it was called last.
func (c *Capture) TakeGaps(peer netip.Addr) (Gaps, error) {
	if _, err := c.look(c.received, peer); err != nil {
		return Gaps{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.received[peer]
	taken := t.gaps
	t.gaps = Gaps{}
	if t.frames > 0 {
		c.received[peer] = t
	}
	return taken, nil
}
