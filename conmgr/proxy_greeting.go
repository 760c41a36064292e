// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// greeting reads along what an instance sends first, until it has told the key
// that cancels (BackendKeyData). It keeps no more than one short message. Bytes
// that are no messages end it: what they are is for the client to judge.
type greeting struct {
	// unbind leaves the mechanisms with channel binding out of what the instance
	// offers. They bind to the TLS of the client's own connection, which has none:
	// libpq breaks off when it is offered them in clear text (fe-auth.c,
	// pg_SASL_init). Without them it says that it cannot bind (n), not that the
	// server cannot (y), so the instance sees no downgrade.
	unbind bool
	learn  func(key []byte) // pid and key; called once at most
	done   bool             // nothing more to read

	held []byte // of a message that is not there as a whole
	skip int    // bytes of a message that still pass
}

// greetingHeld is the longest message that is looked into: BackendKeyData has up
// to 265 bytes, and the list of mechanisms is shorter.
const greetingHeld = 1024

// Kinds of messages before the first ReadyForQuery (protocol.h).
const (
	kindAuthentication = 'R'
	kindKeyData        = 'K'
	kindReady          = 'Z'
	greetingKinds      = "RKZvSEN"
	authenticationSASL = 10
)

// pass takes bytes of the instance and returns those that the client gets now.
func (g *greeting) pass(b []byte) []byte {
	if len(g.held) > 0 {
		b = append(g.held, b...)
		g.held = nil
	}
	var out []byte
	for len(b) > 0 && !g.done {
		taken, give := g.step(b)
		if taken == 0 {
			g.held = slices.Clone(b)
			return out
		}
		out, b = append(out, give...), b[taken:]
	}
	return append(out, b...)
}

// rest returns what was held when the stream ended.
func (g *greeting) rest() []byte { return g.held }

// step takes one message, or a part of one, from b and returns how many bytes
// that were and what the client gets for them. It takes nothing when it has to
// see more.
func (g *greeting) step(b []byte) (taken int, give []byte) {
	if g.skip > 0 {
		n := min(g.skip, len(b))
		g.skip -= n
		return n, b[:n]
	}
	if strings.IndexByte(greetingKinds, b[0]) < 0 {
		g.done = true
		return len(b), b
	}
	if len(b) < 5 {
		return 0, nil
	}
	size := int(binary.BigEndian.Uint32(b[1:])) + 1
	if size < 5 || size > 1<<30 {
		g.done = true
		return len(b), b
	}
	if !g.concerns(b[0]) || size > greetingHeld {
		g.done = b[0] == kindReady
		g.skip = size - 5
		return 5, b[:5]
	}
	if len(b) < size {
		return 0, nil
	}
	return size, g.look(b[:size])
}

// concerns reports whether messages of a kind are looked into.
func (g *greeting) concerns(kind byte) bool {
	return kind == kindKeyData || kind == kindAuthentication && g.unbind
}

// look reads a whole message and returns what the client gets for it.
func (g *greeting) look(m []byte) []byte {
	body := m[5:]
	if m[0] == kindKeyData {
		g.done = true
		if checkKey(body) == nil {
			g.learn(slices.Clone(body))
		}
		return m
	}
	if len(body) < 4 || binary.BigEndian.Uint32(body) != authenticationSASL {
		return m
	}
	return unbindMechanisms(m)
}

// unbindMechanisms takes the names that end in -PLUS from AuthenticationSASL. A
// list that would then be empty stays: the client says best what it misses.
func unbindMechanisms(m []byte) []byte {
	out := slices.Clone(m[:9])
	for rest := m[9:]; ; {
		name, next, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(name) == 0 {
			break
		}
		if !bytes.HasSuffix(name, []byte("-PLUS")) {
			out = append(append(out, name...), 0)
		}
		rest = next
	}
	if len(out) == 9 {
		return m
	}
	out = append(out, 0)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
