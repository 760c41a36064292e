// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// attack is what somebody on the path does who reads and adds frames at will but
// has no key.
type attack uint8

const (
	attackReplay  attack = iota + 1 // a recorded frame again, in its session
	attackElse                      // a recorded frame in another session
	attackReflect                   // a recorded frame to its sender
	attackFlip                      // a recorded frame, one bit changed
	attackCut                       // a recorded frame without its end, or with more
	attackHello                     // the following are forged
	attackWelcome
	attackRefuse
	attackForget // REFUSE: there is no such session
	attackCookie
	attackBeat
	attackBye
	attackKinds
)

func (a attack) String() string {
	return [...]string{
		"honest", "replayed", "misplaced", "reflected", "bit-flipped", "cut",
		"forged HELLO", "forged WELCOME", "forged REFUSE", "forged end of session", "forged COOKIE", "forged BEAT", "forged BYE",
	}[a]
}

// recordsMost is how many frames the attacker keeps.
const recordsMost = 64

// attacker sits on all paths.
type attacker struct {
	w       *world
	active  bool
	records []record
}

// record is a frame that the attacker has seen.
type record struct {
	c    *conn
	side int // of its sender
	p    *packet
}

// tap shows the attacker a frame. Old records give way at random, so that some
// are from long ago.
func (a *attacker) tap(c *conn, side int, p *packet) {
	switch {
	case !a.active || p.by != 0:
	case len(a.records) < recordsMost:
		a.records = append(a.records, record{c, side, p})
	default:
		a.records[a.w.rng.IntN(recordsMost)] = record{c, side, p}
	}
}

// planAttacks lets attacks happen at any time, also while all else is well: they
// must not matter.
func (w *world) planAttacks() {
	w.attacker.w = w
	w.attacker.active = w.keyed && w.chance(0.7)
	if !w.attacker.active {
		return
	}
	for range w.rng.IntN(60) {
		w.plan(epoch.Add(w.between(0, w.settledAt.Sub(epoch))), w.attacker.strike)
	}
}

// strike does one attack, if something fit for it was seen.
func (a *attacker) strike() {
	if len(a.records) == 0 {
		return
	}
	kind := attack(1 + a.w.rng.IntN(int(attackKinds)-1))
	r := a.records[a.w.rng.IntN(len(a.records))]
	switch {
	case kind < attackHello:
		a.again(kind, r)
	default:
		a.forge(kind, r)
	}
}

// again uses a recorded frame.
func (a *attacker) again(kind attack, r record) {
	w := a.w
	c, to, p := r.c, 1-r.side, &packet{b: r.p.b, sent: r.p.sent, by: kind}
	switch kind {
	case attackElse:
		if c = w.links[w.rng.IntN(len(w.links))].conn; c == r.c {
			return
		}
	case attackReflect:
		to = r.side
	case attackFlip:
		p.b, p.sent = slices.Clone(p.b), nil
		p.b[w.rng.IntN(len(p.b))] ^= 1 << w.rng.IntN(8)
	case attackCut:
		p.sent = nil
		if n := w.rng.IntN(len(p.b) + 8); n < len(p.b) {
			p.b = slices.Clone(p.b[:n])
		} else {
			p.b = append(slices.Clone(p.b), make([]byte, 1+n-len(p.b))...)
		}
	}
	a.inject(c, to, p)
}

// forge makes a frame out of what a recorded one tells: ids, nonces, numbers.
func (a *attacker) forge(kind attack, r record) {
	w := a.w
	var seen wire.Frame
	if wire.Parse(r.p.b, &seen) != nil {
		return
	}
	f := wire.Frame{Header: wire.Header{Session: seen.Session, Seq: seen.Seq + 1 + uint64(w.rng.IntN(4))}}
	to := 1 - r.side
	switch kind {
	case attackBeat:
		f.Type = wire.TypeBeat
		f.Beat.State, f.Beat.Reason = wire.StateDown, pick(w, wire.ReasonTimeout, wire.ReasonReplaced)
	case attackForget:
		// It may make a silent conmgr dial anew: a fault like others.
		if seen.Type != wire.TypeBeat || to == 0 || w.faultless || w.now.After(w.healthyAt) {
			return
		}
		f.Type, f.Session, to = wire.TypeRefuse, 0, 0
		f.Refuse = wire.Refuse{Code: wire.CodeSession, Echo: wire.EchoOf(&seen.Header)}
	case attackBye:
		f.Type, f.Bye.Kind = wire.TypeBye, wire.ByeKind(1+w.rng.IntN(4))
	default:
		if seen.Type != wire.TypeHello || !a.forgeOpening(kind, r.c, &seen, &f) {
			return
		}
		if to = 0; kind == attackHello {
			to = 1
		}
	}
	b := wire.Append(nil, &f)
	a.sealWrong(b, &seen, &f)
	a.inject(r.c, to, &packet{b: b, by: kind})
}

// forgeOpening makes a frame of the handshake that a HELLO has begun.
func (a *attacker) forgeOpening(kind attack, c *conn, seen, f *wire.Frame) bool {
	w := a.w
	switch kind {
	case attackHello:
		f.Type, f.Session, f.Hello = wire.TypeHello, 0, seen.Hello
		f.Hello.Nonce = w.nonce(0xaa)
		// Who reads the path gets the cookie for any address on it.
		f.Hello.Cookie = w.watchdog.cookies.Make(c.remote, f.Hello.Nonce, w.now)
	case attackWelcome:
		f.Type, f.Session = wire.TypeWelcome, 1+w.rng.Uint64N(100)
		f.Welcome = wire.Welcome{Watchdog: w.watchdog.self(), Echo: seen.Hello.Nonce, Nonce: w.nonce(0xab), Key: seen.Hello.Key}
	case attackRefuse:
		f.Type, f.Refuse = wire.TypeRefuse, wire.Refuse{Code: wire.CodeFull, Echo: seen.Hello.Nonce}
	case attackCookie:
		if !w.datagram {
			return false
		}
		f.Type, f.Cookie.Echo = wire.TypeCookie, seen.Hello.Nonce
		f.Cookie.Cookie = [wire.CookieSize]byte{byte(w.rng.Uint32()), 1}
	}
	return true
}

// sealWrong makes a MAC as well as one can without the secret: with a guessed
// secret, by chance, or not at all.
func (a *attacker) sealWrong(b []byte, seen, f *wire.Frame) {
	guess, err := simRings()["forger"].Find(seen.Hello.Key, a.w.clients[0].addr())
	switch {
	case f.Type == wire.TypeCookie || a.w.chance(0.3):
	case f.Type == wire.TypeHello && err == nil:
		guess.SealHello(b)
	case f.Type == wire.TypeRefuse && err == nil:
		guess.SealRefuse(b)
	case f.Type == wire.TypeWelcome && err == nil:
		s := key.NewSession(key.Watchdog, guess, key.Handshake{
			Conmgr: seen.Hello.Conmgr, Watchdog: f.Welcome.Watchdog,
			HelloNonce: f.Welcome.Echo, WelcomeNonce: f.Welcome.Nonce, Session: f.Session,
		})
		s.Seal(b)
	default:
		b[wire.OffsetAuth] = wire.AuthHMAC
		for i := range wire.MACSize {
			b[wire.OffsetMAC+i] = byte(a.w.rng.Uint32())
		}
	}
}

// inject puts a frame on the path. A stream takes only what does not break it:
// who can write into it can reset it, too, key or not.
func (a *attacker) inject(c *conn, to int, p *packet) {
	w := a.w
	if c == nil || !w.datagram && !c.takes(to, p) {
		return
	}
	w.say("attack: %v frame for the %s of %d", p.by, side(1-to), c.client.client)
	w.tally.attacks[p.by]++
	w.after(c.link.delay(), func() {
		if w.datagram || c.takes(to, p) {
			c.arrive(to, p)
		}
	})
}

// takes reports whether a frame in the middle of a stream reaches a session.
func (c *conn) takes(side int, p *packet) bool {
	var f wire.Frame
	e := c.ends[side]
	return c.open[side] && e != nil && e.conn == c && e.m.link >= linkShaking && wire.Parse(p.b, &f) == nil
}

// mark is what an attack must leave alone.
type mark struct {
	e                         *end
	doubtful                  bool
	state                     wire.State
	session, peer             uint64
	lastValid, deadline, beat mono.Instant
}

// harmless runs the delivery of an attacker's frame and holds the daemon's
// machines against what they were before. A frame that had not arrived yet is
// what the network could have brought as well.
func (h *host) harmless(p *packet, deliver func()) {
	if p.sent != nil && p.sent.given == 0 {
		deliver()
		return
	}
	var before []mark
	for _, e := range h.ends {
		before = append(before, e.mark())
	}
	deliver()
	for _, m := range before {
		after := m.e.mark()
		if m.doubtful && p.forgets() { // it dials anew, no more
			after.session = m.session
		}
		if m.state == wire.StateInit && p.by == attackReplay { // of a HELLO after the one that made it
			after.peer = m.peer
		}
		if after != m {
			h.w.fail("%s: a %v frame changed it", m.e, p.by)
		}
	}
}

// forgets reports whether the frame says that there is no such session, which
// nobody can prove: made up, or another one with a bit flipped.
func (p *packet) forgets() bool {
	var f wire.Frame
	return wire.Parse(p.b, &f) == nil && f.Type == wire.TypeRefuse && f.Refuse.Code == wire.CodeSession
}

func (e *end) mark() mark {
	m := e.m
	return mark{e, m.doubtful(), m.state, m.session, m.heardSeq, m.lastValid, m.Deadline(), m.nextBeat}
}

// noteGiven holds each frame that is given to a machine against what was really
// sent: by the peer, in this very session, and once. The proofs of a HELLO, a
// REFUSE and a COOKIE cannot say all of that: the machine itself looks at nonces.
func (e *end) noteGiven(p *packet, f *wire.Frame) {
	w := e.h.w
	switch {
	case f.Type == wire.TypeCookie || f.Type == wire.TypeRefuse && f.Refuse.Code == wire.CodeSession:
		return // proves nothing, and repeats the HELLO or dials, no more
	case p.sent == nil:
		w.fail("%s: is given a %v %v", e, p.by, f.Type)
		return
	case f.Type == wire.TypeHello || f.Type == wire.TypeRefuse:
		return // see noteTaken
	case p.sent.conn != e.conn || p.sent.side == e.h.side:
		w.fail("%s: is given a %v %v that was not meant for it", e, p.by, f.Type)
	}
	if p.sent.given++; w.keyed && p.sent.given > 1 {
		w.fail("%s: is given a %v %v twice", e, p.by, f.Type)
	}
}

// noteTaken looks at a HELLO or REFUSE that the machine, whose transport was c,
// acted on: it is the peer's, and new to it. A HELLO that comes late may open a
// session of its own, which nobody arms.
func (e *end) noteTaken(c *conn, p *packet, f *wire.Frame) {
	if f.Type != wire.TypeHello && f.Type != wire.TypeRefuse || p.sent == nil || f.Refuse.Code == wire.CodeSession {
		return
	}
	if p.sent.taker == e || p.sent.conn != c {
		e.h.w.fail("%s: acts on a %v %v", e, p.by, f.Type)
	}
	p.sent.given++
	p.sent.taker = e
}
