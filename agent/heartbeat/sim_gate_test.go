// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"errors"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// packet is one frame on its way. by is the attack that put it there, empty for
// what the ends themselves have sent.
type packet struct {
	b    []byte
	sent *sent // the frame as one end sent it; nil for a forged one
	by   attack
}

// sent is what the oracle knows of a frame that an end has sent.
type sent struct {
	conn  *conn
	side  int
	given int  // how often it was given to a machine
	taker *end // who acted on it last; a HELLO and a REFUSE only
}

// frame takes what came for the daemon: see frame in agent/peer's session.go and
// packet in its udp.go.
func (h *host) frame(now mono.Instant, c *conn, p *packet) {
	var f wire.Frame
	err := wire.Parse(p.b, &f)
	switch {
	case errors.Is(err, wire.ErrVersion) && f.Type == wire.TypeHello && h.side == 1 && h.w.datagram:
		c.answer(f.Hello.Nonce, nil, wire.CodeVersion)
	case err != nil:
		if p.by == 0 {
			h.w.fail("%s: %v", h.name, err)
		}
	case h.side == 0:
		if e := c.ends[0]; e != nil && e.conn == c {
			e.frame(now, p, &f)
		}
	case h.w.datagram:
		h.datagram(now, c, p, &f)
	case c.ends[1] == nil:
		h.firstFrame(now, c, p, &f)
	case c.ends[1].conn == c:
		c.ends[1].frame(now, p, &f)
	}
}

// datagram finds the session that a datagram is for; a HELLO may make one.
func (h *host) datagram(now mono.Instant, c *conn, p *packet, f *wire.Frame) {
	if f.Type == wire.TypeHello {
		h.hello(now, c, p, f)
		return
	}
	for _, e := range h.ends {
		if e.m.session == f.Session && e.conn == c {
			e.frame(now, p, f)
			return
		}
	}
	if f.Type == wire.TypeBeat && !h.knows(f.Session) {
		h.w.tally.forgotten++
		c.answer(wire.EchoOf(&f.Header), nil, wire.CodeSession)
	}
}

func (h *host) knows(session uint64) bool {
	return slices.ContainsFunc(h.ends, func(e *end) bool { return e.m.session == session && !e.m.stopped })
}

// hello answers a HELLO on UDP, with a cookie first.
func (h *host) hello(now mono.Instant, c *conn, p *packet, f *wire.Frame) {
	hello := &f.Hello
	if !h.cookies.Check(hello.Cookie, c.remote, hello.Nonce, now) {
		h.w.tally.cookies++
		c.send(1, h.w.outside(c, &wire.Frame{
			Header: wire.Header{Type: wire.TypeCookie, Seq: 1},
			Cookie: wire.Cookie{Cookie: h.cookies.Make(c.remote, hello.Nonce, now), Echo: hello.Nonce},
		}, nil))
		return
	}
	old := h.shaking(c)
	if old != nil && old.m.Nonce() == hello.Nonce {
		old.frame(now, p, f)
		return
	}
	k, code := h.judge(p, f, c)
	if code != 0 {
		c.answer(hello.Nonce, k, code)
		return
	}
	if old != nil {
		old.step(func(out *Output) { old.m.Replace(now, out) })
	}
	h.open(now, c, p, f, k)
}

// shaking returns the session that is being opened from that address.
func (h *host) shaking(c *conn) *end {
	for _, e := range h.ends {
		if e.conn == c && e.m.State() == wire.StateInit {
			return e
		}
	}
	return nil
}

// firstFrame opens a session on a TCP connection, or ends it.
func (h *host) firstFrame(now mono.Instant, c *conn, p *packet, f *wire.Frame) {
	if f.Type != wire.TypeHello {
		c.close(1)
		return
	}
	k, code := h.judge(p, f, c)
	if code != 0 {
		c.answer(f.Hello.Nonce, k, code)
		c.close(1)
		return
	}
	h.open(now, c, p, f, k)
}

// judge weighs a HELLO: its key, then whether there is room.
func (h *host) judge(p *packet, f *wire.Frame, c *conn) (*key.Key, wire.Code) {
	k, err := h.ring.OpenHello(p.b, &f.Hello, c.addr())
	switch {
	case errors.Is(err, key.ErrAddress):
		return k, wire.CodeAddress
	case err != nil:
		return nil, wire.CodeKey
	case h.w.now.Before(h.fullUntil):
		return k, wire.CodeFull
	}
	return k, 0
}

func (h *host) open(now mono.Instant, c *conn, p *packet, f *wire.Frame, k *key.Key) {
	e := &end{h: h, client: c.client.client, conn: c}
	if p.sent == nil {
		h.w.fail("%s: a %v HELLO opens a session", h.name, p.by)
	} else {
		p.sent.given++
		p.sent.taker = e
	}
	c.ends[1] = e
	h.w.sessions++
	h.ends = append(h.ends, e)
	o := Opening{Session: h.w.sessions}
	if k != nil {
		o.Key, o.Nonce = k.ID(), h.w.nonce(0xff)
		e.proof = proof{k, key.NewSession(key.Watchdog, k, key.Handshake{
			Conmgr: f.Hello.Conmgr, Watchdog: h.self(), HelloNonce: f.Hello.Nonce, WelcomeNonce: o.Nonce, Session: o.Session,
		})}
	}
	cfg := h.config(Passive)
	e.step(func(out *Output) { e.m = NewPassive(&cfg, o, f, now, out) })
	h.w.say("%s: accepted", e)
}

// answer refuses a HELLO or a BEAT of no session, sealed when its sender has proven to hold k.
func (c *conn) answer(echo wire.ID, k *key.Key, code wire.Code) {
	c.w.tally.refused++
	if k != nil {
		c.w.tally.refusedSealed++
	}
	c.send(1, c.w.outside(c, &wire.Frame{
		Header: wire.Header{Type: wire.TypeRefuse, Seq: 1},
		Refuse: wire.Refuse{Code: code, Echo: echo},
	}, k))
}

// outside encodes a frame of the watchdog that belongs to no session.
func (w *world) outside(c *conn, f *wire.Frame, k *key.Key) *packet {
	b := wire.Append(nil, f)
	if k != nil {
		k.SealRefuse(b)
	}
	return &packet{b: b, sent: &sent{conn: c, side: 1}}
}

// frame gives a frame to the machine, when it is the peer's.
func (e *end) frame(now mono.Instant, p *packet, f *wire.Frame) {
	if !e.opens(p.b, f) {
		e.h.w.tally.dropped++
		return
	}
	e.noteGiven(p, f)
	c, before := e.conn, e.m.Stats().Received
	e.receive(now, f)
	if e.m.Stats().Received != before {
		e.noteTaken(c, p, f)
	}
}
