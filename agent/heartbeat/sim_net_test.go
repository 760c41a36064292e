// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// conn is one attempt's transport: a TCP connection, or a UDP flow. Side 0 is
// the conmgr's, side 1 the watchdog's.
type conn struct {
	w      *world
	link   *path
	client *host
	remote netip.AddrPort // the conmgr's address
	open   [2]bool        // the kernel has a socket
	ends   [2]*end
	pipes  [2]*pipe // by direction; streams only
}

func (w *world) dial(h *host, e *end) *conn {
	l := w.links[h.client]
	w.ports++
	c := &conn{w: w, link: l, client: h, remote: netip.AddrPortFrom(h.addr(), w.ports)}
	c.open[0], c.ends[0] = true, e
	l.conn = c
	e.choose()
	if w.datagram {
		c.open[1] = true
		h.post(func(now mono.Instant) { c.connected(now) })
		return c
	}
	c.pipes = [2]*pipe{{c: c, dir: 0}, {c: c, dir: 1}}
	c.pipes[0].push(func() {
		if !w.watchdog.up {
			c.pipes[1].push(func() { c.broken(0) })
			return
		}
		c.open[1] = true
		c.pipes[1].push(func() {
			if c.open[0] {
				h.post(func(now mono.Instant) { c.connected(now) })
			}
		})
	})
	return c
}

func (c *conn) addr() netip.Addr { return c.remote.Addr() }

func (c *conn) connected(now mono.Instant) {
	if e := c.ends[0]; e != nil && e.conn == c {
		e.step(func(out *Output) { e.m.Connected(now, out) })
	}
}

// host returns the host of that side.
func (c *conn) host(side int) *host {
	if side == 0 {
		return c.client
	}
	return c.w.watchdog
}

// send takes a frame from a side to the other.
func (c *conn) send(from int, p *packet) {
	l := c.link
	c.w.attacker.tap(c, from, p)
	if !c.w.datagram {
		c.pipes[from].push(func() { c.arrive(1-from, p) })
		return
	}
	for copies := 1; copies > 0; copies-- {
		if c.w.chance(l.dup) {
			copies++
		}
		if !c.w.chance(l.loss[from]) {
			c.w.after(l.delay(), func() { c.arrive(1-from, p) })
		}
	}
}

// arrive hands a frame to the kernel of a side. The kernel works while the
// process is paused.
func (c *conn) arrive(side int, p *packet) {
	h := c.host(side)
	switch {
	case h.crashed || c.w.datagram && c.link.cuts[1-side] > 0:
	case c.w.datagram && !h.up && c.w.chance(0.5): // port unreachable
		c.w.after(c.link.delay(), func() { c.broken(1 - side) })
	case !h.up || c.w.datagram && !c.open[side]:
	case !c.open[side]:
		c.pipes[side].push(func() { c.broken(1 - side) })
	default:
		h.post(func(now mono.Instant) {
			if p.by == 0 {
				h.frame(now, c, p)
				return
			}
			h.harmless(p, func() { h.frame(now, c, p) })
		})
	}
}

// broken tells a side that the peer's kernel ended its transport.
func (c *conn) broken(side int) { c.ended(side, (*Machine).Broken) }

func (c *conn) ended(side int, tell func(*Machine, mono.Instant, *Output)) {
	h := c.host(side)
	if !c.open[side] || !h.up || c.w.datagram && side == 1 {
		return
	}
	c.open[side] = false
	h.post(func(now mono.Instant) {
		if e := c.ends[side]; e != nil && e.conn == c {
			e.conn = nil
			c.w.say("%s: transport broken", e)
			e.step(func(out *Output) { tell(e.m, now, out) })
		}
	})
}

// close ends a side: FIN or RST follow what was sent.
func (c *conn) close(side int) {
	if c.open[side] && !c.w.datagram {
		c.pipes[side].push(func() { c.broken(1 - side) })
	}
	c.open[side] = c.open[side] && c.w.datagram && side == 1
}

// reset is what a middlebox does.
func (c *conn) reset() {
	c.broken(0)
	c.broken(1)
}

// pipe is one direction of a stream: ordered and lossless until it breaks.
type pipe struct {
	c     *conn
	dir   int
	last  mono.Instant // arrival of what was pushed last
	stuck []func()
	since mono.Instant
}

func (p *pipe) push(arrive func()) {
	w, l := p.c.w, p.c.link
	at := w.now.Add(l.delay())
	for w.chance(l.loss[p.dir]) {
		at = at.Add(w.between(w.timeout/10, w.timeout/2)) // sent again
	}
	p.last = max(p.last, at)
	w.plan(p.last, func() { p.deliver(arrive) })
}

func (p *pipe) deliver(arrive func()) {
	if p.c.link.cuts[p.dir] == 0 && len(p.stuck) == 0 {
		arrive()
		return
	}
	if len(p.stuck) == 0 {
		p.since = p.c.w.now
		p.c.link.stuck = append(p.c.link.stuck, p)
		p.c.w.after(2*p.c.w.timeout, p.giveUp)
	}
	p.stuck = append(p.stuck, arrive)
}

// giveUp is TCP_USER_TIMEOUT: nothing was acknowledged for so long.
func (p *pipe) giveUp() {
	if len(p.stuck) > 0 && p.c.w.now.Sub(p.since) >= 2*p.c.w.timeout {
		p.stuck = nil
		p.c.ended(p.dir, (*Machine).Lost)
	}
}

func (p *pipe) resume() {
	if p.c.link.cuts[p.dir] > 0 {
		p.c.link.stuck = append(p.c.link.stuck, p)
		return
	}
	waiting := slices.Clone(p.stuck)
	p.stuck = nil
	p.last = max(p.last, p.c.w.now.Add(p.c.w.between(0, p.c.w.timeout/5)))
	for _, arrive := range waiting {
		p.c.w.plan(p.last, func() { p.deliver(arrive) })
	}
}

// encode makes and checks the bytes of what a machine sends.
func (e *end) encode(f *wire.Frame) *packet {
	w := e.h.w
	b := wire.Append(nil, f)
	if len(b) > wire.MaxFrame {
		w.fail("a %v of %d bytes", f.Type, len(b))
	}
	e.seal(b, f.Type)
	w.tally.frames++
	return &packet{b: b, sent: &sent{conn: e.conn, side: e.h.side}}
}
