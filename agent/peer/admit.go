// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func (ln *Listener) accept(fd int, remote netip.AddrPort) {
	h := &halfOpen{ln: ln}
	t, err := ln.loop.adopt(fd, remote, h)
	if err != nil {
		return
	}
	h.stream = t
	h.timer = ln.loop.NewTimer(h.evict)
	h.timer.Set(ln.loop.now.Add(ln.cfg.HandshakeTimeout))
	if len(ln.half) >= ln.cfg.HalfOpen {
		ln.half[0].evict()
	}
	ln.half = append(ln.half, h)
}

// halfOpen is a TCP connection without a HELLO yet.
type halfOpen struct {
	ln     *Listener
	stream *stream
	timer  *Timer
}

// leave takes h off the list: it has become a session, or is gone.
func (h *halfOpen) leave() {
	h.timer.Stop()
	if i := slices.Index(h.ln.half, h); i >= 0 {
		h.ln.half = slices.Delete(h.ln.half, i, i+1)
	}
}

func (h *halfOpen) evict() {
	h.leave()
	h.stream.close(true)
}

func (h *halfOpen) connected(transport) {}

func (h *halfOpen) broken(transport, error) { h.leave() }

func (h *halfOpen) frame(_ transport, raw []byte, f *wire.Frame, err error) {
	ln, t := h.ln, h.stream
	switch {
	case err == wire.ErrVersion:
		ln.acceptor.TurnedAway(t.remote, err)
		h.refuse(f, nil, wire.CodeVersion, wire.Version)
	case err != nil || f.Type != wire.TypeHello:
		ln.stats.Malformed++
		h.evict()
	default:
		k, code, limit, adm := ln.judge(raw, f, t.remote)
		if code != 0 {
			h.refuse(f, k, code, limit)
			return
		}
		h.leave()
		ln.open(t, t.remote, f, k, adm)
	}
}

func (h *halfOpen) refuse(f *wire.Frame, k *key.Key, code wire.Code, limit uint32) {
	b := wire.AppendPrefixed(h.ln.loop.wbuf[:0], &wire.Frame{
		Header: wire.Header{Type: wire.TypeRefuse, Seq: 1},
		Refuse: wire.Refuse{Code: code, Limit: limit, Echo: f.Hello.Nonce},
	})
	if k != nil {
		k.SealRefuse(b[wire.PrefixSize:])
	}
	h.stream.send(b, true)
	h.leave()
	h.stream.close(false)
}

// judge weighs a HELLO: its key, then the acceptor's bounds. With a code other
// than 0 it is refused; k seals the refusal when the sender has proven to hold it.
func (ln *Listener) judge(raw []byte, f *wire.Frame, remote netip.AddrPort) (k *key.Key, code wire.Code, limit uint32, adm Admission) {
	k, err := ln.ring.OpenHello(raw, &f.Hello, remote.Addr())
	if err != nil {
		ln.stats.Refused++
		ln.acceptor.TurnedAway(remote, err)
		if errors.Is(err, key.ErrAddress) {
			return k, wire.CodeAddress, 0, adm
		}
		return nil, wire.CodeKey, 0, adm
	}
	adm = ln.acceptor.Admit(remote, &f.Hello, k != nil, ln.counts(remote.Addr(), f.Hello.Conmgr))
	if adm.Code != 0 {
		ln.stats.Refused++
	}
	return k, adm.Code, adm.Limit, adm
}

// open makes a session of an admitted HELLO.
func (ln *Listener) open(t transport, remote netip.AddrPort, f *wire.Frame, k *key.Key, adm Admission) {
	hello := &f.Hello
	s := &Session{
		handler: passive{ln}, transport: t, remote: remote,
		id: ln.cfg.NewSession(), conmgr: hello.Conmgr, incarnation: hello.Incarnation, Protected: adm.Protected,
	}
	opening := heartbeat.Opening{Session: s.id, Ended: adm.Ended}
	if k != nil {
		opening.Key, opening.Nonce = k.ID(), freshNonce()
		s.key = k
		s.keys = key.NewSession(key.Watchdog, k, key.Handshake{
			Conmgr: hello.Conmgr, Watchdog: ln.cfg.Self,
			HelloNonce: hello.Nonce, WelcomeNonce: opening.Nonce, Session: s.id,
		})
	}
	cfg := ln.configs.take(timersOf(hello, t))
	ln.byID[s.id], ln.unarmed[s] = s, struct{}{}
	ln.byAddr[remote.Addr()] = append(ln.byAddr[remote.Addr()], s)
	switch t := t.(type) {
	case *stream:
		setTCP(t.fd, cfg.Timeout)
		t.owner = s
	case *endpoint:
		t.session = s
		ln.shaking[remote] = s
	}
	out := ln.loop.output()
	s.begin(ln.loop, heartbeat.NewPassive(cfg, opening, f, ln.loop.now, out))
	s.finish(out)
	ln.boundShaking()
}

// boundShaking evicts the oldest session that is still shaking hands when there
// are too many.
func (ln *Listener) boundShaking() {
	if len(ln.unarmed) <= ln.cfg.HalfOpen {
		return
	}
	var oldest *Session
	for s := range ln.unarmed {
		if oldest == nil || s.id < oldest.id {
			oldest = s
		}
	}
	oldest.replace()
}

// counts includes, for the address, the sessions that are still shaking hands:
// else many HELLOs at once could all be admitted and then be armed together, past
// the bound. In the total they do not count: with HELLOs that he has read on the
// path and sends again, a stranger could fill it up and keep a conmgr out that has
// to begin anew. So the total may be exceeded by as many as may shake hands.
func (ln *Listener) counts(addr netip.Addr, conmgr wire.ID) Counts {
	c := Counts{Total: ln.armed}
	for _, s := range ln.byAddr[addr] {
		switch {
		case s.conmgr != conmgr:
			c.OfAddress++
		case heartbeat.Armed(s.m.State()):
			c.Total--
		}
	}
	return c
}

// account keeps the numbers of armed and silent sessions.
func (ln *Listener) account(s *Session, c heartbeat.Change) {
	switch was, is := heartbeat.Armed(c.From), heartbeat.Armed(c.To); {
	case is && !was:
		ln.armed++
	case was && !is:
		ln.armed--
	}
	ln.silent += silent(c.To) - silent(c.From)
	if c.From == wire.StateInit {
		delete(ln.unarmed, s)
		if ln.shaking[s.remote] == s {
			delete(ln.shaking, s.remote)
		}
	}
}

func silent(s wire.State) int {
	if s == wire.StateLate || s == wire.StateSuspect {
		return 1
	}
	return 0
}

// passive stands between a Passive session and the acceptor: it keeps the
// listener's books.
type passive struct{ ln *Listener }

// Changed implements Handler. A session that becomes armed takes over from an
// older one of the same conmgr at the same address.
func (p passive) Changed(s *Session, c heartbeat.Change) {
	p.ln.account(s, c)
	if c.From == wire.StateInit && c.To == wire.StateUp {
		p.ln.acceptor.Changed(s, c)
		p.ln.replaceOlder(s)
		return
	}
	if c.To == wire.StateDown {
		p.ln.forget(s)
	}
	p.ln.acceptor.Changed(s, c)
}

// Told implements Handler.
func (p passive) Told(s *Session) { p.ln.acceptor.Told(s) }

// Refused implements Handler; a conmgr refuses nothing.
func (p passive) Refused(*Session, wire.Refuse, bool) {}

// Broken implements Handler.
func (p passive) Broken(s *Session, err error) { p.ln.acceptor.Broken(s, err) }

func (ln *Listener) replaceOlder(by *Session) {
	for _, s := range slices.Clone(ln.byAddr[by.remote.Addr()]) {
		if s != by && s.conmgr == by.conmgr && heartbeat.Armed(s.m.State()) {
			s.replace()
		}
	}
}

func (ln *Listener) forget(s *Session) {
	if ln.byID[s.id] != s {
		return
	}
	delete(ln.byID, s.id)
	ln.ended.add(s.m.Stats())
	ln.configs.release(s.m.Config())
	addr := s.remote.Addr()
	rest := slices.DeleteFunc(ln.byAddr[addr], func(o *Session) bool { return o == s })
	ln.byAddr[addr] = rest
	if len(rest) == 0 {
		delete(ln.byAddr, addr)
	}
	ln.loop.drop(s)
}
