// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"crypto/rand"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// security is what a session proves its frames with; see the package comment of
// agent/key for which key authenticates which frame. Without a key nothing is
// sealed and nothing is checked.
type security struct {
	key    *key.Key    // nil without one
	keys   key.Session // of the present session, once there is one
	forged uint64      // frames that were not the peer's
}

// freshNonce draws the nonce of the next attempt.
func freshNonce() (nonce wire.ID) {
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	return nonce
}

// choose takes the key for the next attempt and returns its id, zero for none.
func (s *security) choose(provide func() *key.Key) (id wire.ID) {
	s.key, s.keys = nil, key.Session{}
	if provide != nil {
		s.key = provide()
	}
	if s.key != nil {
		id = s.key.ID()
	}
	return id
}

// seal authenticates an encoded frame in place.
func (s *security) seal(frame []byte, t wire.Type) {
	switch {
	case s.key == nil:
	case t == wire.TypeHello:
		s.key.SealHello(frame)
	default:
		s.keys.Seal(frame)
	}
}

// open reports whether a frame may go to the machine: it is the peer's and new.
// Without a key every frame may; with one there is no way round it.
func (s *Session) open(raw []byte, f *wire.Frame) bool {
	if s.key == nil {
		return f.Auth == wire.AuthNone
	}
	ok := false
	switch f.Type {
	case wire.TypeHello: // a repetition: the WELCOME was lost
		ok = s.active == nil && s.key.OpenHello(raw)
	case wire.TypeCookie: // nobody can authenticate it; the nonce stands for it
		ok = s.active != nil
	case wire.TypeRefuse:
		// That the watchdog has no such session it cannot prove; see the machine.
		ok = s.active != nil && (f.Refuse.Code == wire.CodeSession || s.key.OpenRefuse(raw))
		if !ok && s.active != nil && f.Refuse.Echo == s.m.Nonce() && !s.keys.Keyed() {
			s.handler.Refused(s, f.Refuse, false)
		}
	case wire.TypeWelcome:
		ok = s.openWelcome(raw, f)
	default:
		ok = s.keys.Accept(raw) == nil
	}
	if !ok {
		s.forged++
	}
	return ok
}

// openWelcome derives the session's keys from a WELCOME and keeps them when it was
// made with them.
func (s *Session) openWelcome(raw []byte, f *wire.Frame) bool {
	w := &f.Welcome
	if s.active == nil || s.keys.Keyed() || w.Echo != s.m.Nonce() || w.Key != s.key.ID() {
		return false
	}
	keys := key.NewSession(key.Conmgr, s.key, key.Handshake{
		Conmgr: s.active.Heartbeat.Self, Watchdog: w.Watchdog,
		HelloNonce: w.Echo, WelcomeNonce: w.Nonce, Session: f.Session,
	})
	if keys.Accept(raw) != nil {
		return false
	}
	s.keys = keys
	return true
}

// Key returns the id of the key in use, zero for none.
func (s *Session) Key() (id wire.ID) {
	if s.key != nil {
		id = s.key.ID()
	}
	return id
}

// Forged returns how many frames were dropped because they were not the peer's,
// or not new.
func (s *Session) Forged() uint64 { return s.forged }
