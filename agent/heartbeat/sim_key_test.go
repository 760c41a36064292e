// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// simRings are the key files of all simulations, by name. A ring's first key is
// what a conmgr uses.
var simRings = sync.OnceValue(func() map[string]*key.Ring {
	line := func(id, secret, clients string) string {
		sum := sha256.Sum256([]byte(secret))
		return id + " " + hex.EncodeToString(sum[:]) + " " + clients + "\n"
	}
	old, next := line("old", "one", ""), line("next", "two", "192.0.2.0/24")
	rings := map[string]*key.Ring{}
	for name, text := range map[string]string{
		"old":      old,
		"old+next": old + next,
		"next+old": next + old,
		"next":     next,
		"other":    line("old", "another secret", ""),  // under the same id
		"astray":   line("old", "one", "198.51.100.7"), // not for the clients here
		"forger":   line("old", "guessed", "") + line("next", "guessed too", ""),
	} {
		ring, err := key.Parse(name, []byte(text))
		if err != nil {
			panic(err)
		}
		rings[name] = ring
	}
	return rings
})

// proof is what one end proves its frames with: the driver's part, see security
// in agent/peer.
type proof struct {
	key  *key.Key
	keys key.Session
}

// choose takes the key of the host's file for the next attempt.
func (e *end) choose() {
	e.proof = proof{key: e.h.ring.First()}
	if e.key != nil {
		e.m.SetKey(e.key.ID())
	}
}

func (p *proof) seal(frame []byte, t wire.Type) {
	switch {
	case p.key == nil:
	case t == wire.TypeHello:
		p.key.SealHello(frame)
	default:
		p.keys.Seal(frame)
	}
}

// opens reports whether a frame may go to the machine.
func (e *end) opens(raw []byte, f *wire.Frame) bool {
	active := e.h.side == 0
	if e.key == nil {
		return f.Auth == wire.AuthNone
	}
	switch f.Type {
	case wire.TypeHello:
		return !active && e.key.OpenHello(raw)
	case wire.TypeCookie:
		return active
	case wire.TypeRefuse:
		return active && (f.Refuse.Code == wire.CodeSession || e.key.OpenRefuse(raw))
	case wire.TypeWelcome:
		return active && e.opensWelcome(raw, f)
	}
	return e.keys.Accept(raw) == nil
}

func (e *end) opensWelcome(raw []byte, f *wire.Frame) bool {
	w := &f.Welcome
	if e.keys.Keyed() || w.Echo != e.m.Nonce() || w.Key != e.key.ID() {
		return false
	}
	keys := key.NewSession(key.Conmgr, e.key, key.Handshake{
		Conmgr: e.m.Config().Self, Watchdog: w.Watchdog,
		HelloNonce: w.Echo, WelcomeNonce: w.Nonce, Session: f.Session,
	})
	if keys.Accept(raw) != nil {
		return false
	}
	e.keys = keys
	return true
}

// loadKeys makes a running daemon take the keys of its file.
func (h *host) loadKeys() {
	h.post(func(now mono.Instant) {
		h.ring = h.file
		if h.side == 1 {
			h.renew(now)
		}
	})
}

// renew ends the watchdog's sessions whose key is gone: see Listener.SetRing in
// agent/peer.
func (h *host) renew(now mono.Instant) {
	for _, e := range append([]*end(nil), h.ends...) {
		if k := h.ring.Renew(e.key); k != nil && k.Allows(h.w.clients[e.client].addr()) {
			e.key = k
			continue
		}
		if Armed(e.m.State()) {
			h.w.tally.keyless++
			if h.w.rotation.ordered {
				h.w.fail("%s: ended by a change of keys in the documented order", e)
			}
		}
		e.step(func(out *Output) { e.m.Replace(now, out) })
	}
	h.checkKeys()
}

// checkKeys: after a change of keys every session of the watchdog uses one that
// its file has now, secret and all.
func (h *host) checkKeys() {
	b := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}})
	for _, e := range h.ends {
		if e.key == nil || e.m.stopped {
			continue
		}
		e.key.SealHello(b)
		if now, err := h.ring.Find(e.key.ID(), h.w.clients[e.client].addr()); err != nil || !now.OpenHello(b) {
			h.w.fail("%s: lives on without its key", e)
		}
	}
}

// checkSameKeys: two ends of one armed session can prove to each other who they
// are, both ways.
func (e *end) checkSameKeys() {
	for _, o := range e.h.w.hosts() {
		for _, other := range o.ends {
			if other.h.side != e.h.side && other.m.Session() == e.m.Session() && other.m.link == linkOpen {
				e.h.w.tally.paired++
				if !understands(e, other) || !understands(other, e) {
					e.h.w.fail("%s: armed with other keys than its peer", e)
				}
			}
		}
	}
}

func understands(from, to *end) bool {
	if from.key == nil || to.key == nil {
		return from.key == nil && to.key == nil
	}
	b := wire.Append(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBye, Seq: 1}})
	from.keys.Seal(b)
	return from.key.ID() == to.key.ID() && to.keys.Open(b)
}
