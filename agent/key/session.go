// SPDX-License-Identifier: Apache-2.0

package key

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Errors of [Session.Accept].
var (
	ErrForged = errors.New("the frame was not made with the session's key")
	ErrReplay = errors.New("the frame's sequence number was seen before or is too old")
)

// End is one of the two ends of a session.
type End uint8

// The two ends.
const (
	Conmgr End = iota
	Watchdog
)

// Handshake is what a session's keys are derived from, besides the secret: all
// that makes this session differ from every other one.
type Handshake struct {
	Conmgr       wire.ID // Hello.Conmgr
	Watchdog     wire.ID // Welcome.Watchdog
	HelloNonce   wire.ID // Hello.Nonce
	WelcomeNonce wire.ID // Welcome.Nonce
	Session      uint64  // Header.Session of the WELCOME
}

// Session is the keys and the replay window of one session at one end: a value of
// 96 bytes without pointers. It is not safe for concurrent use. The zero value has
// no keys: it opens nothing and panics when it is to seal.
type Session struct {
	send, recv raw
	window     Window
	end        End
	keyed      bool
}

// NewSession derives the keys of a session for one of its ends.
func NewSession(end End, k *Key, h Handshake) Session {
	toWatchdog := expand(&k.prk, h.info(labelToWatchdog, k.id))
	toConmgr := expand(&k.prk, h.info(labelToConmgr, k.id))
	s := Session{send: toWatchdog, recv: toConmgr, end: end, keyed: true}
	if end == Watchdog {
		s.send, s.recv = toConmgr, toWatchdog
	}
	return s
}

// info is all of a fixed size behind the label.
func (h *Handshake) info(label string, id wire.ID) []byte {
	info := purpose(label, id)
	for _, part := range []wire.ID{h.Conmgr, h.Watchdog, h.HelloNonce, h.WelcomeNonce} {
		info = append(info, part[:]...)
	}
	return binary.BigEndian.AppendUint64(info, h.Session)
}

// Seal authenticates a frame that wire.Append has encoded, in place: WELCOME, BEAT
// or BYE. It panics on a frame that this end never sends within a session, and on
// a Session without keys: those are mistakes of our own code.
func (s *Session) Seal(frame []byte) {
	if !s.keyed || !s.end.sends(typeOf(frame)) {
		panic("key: seal of a frame that does not belong into this session")
	}
	seal(&s.send, 0, frame)
}

// Open reports whether the other end has made frame in this session. It says
// nothing about whether the frame is new; see [Session.Accept].
func (s *Session) Open(frame []byte) bool {
	return s.keyed && s.end.other().sends(typeOf(frame)) && opens(&s.recv, 0, frame)
}

// Accept takes a frame that was received: nil when it is the other end's and new,
// and then it is never accepted again. The order is that of RFC 4303 section
// 3.4.3: first the sequence number is looked up, which costs nothing, then the MAC
// is verified, and only then the number is marked as seen, so that a forged frame
// cannot move the window.
func (s *Session) Accept(frame []byte) error {
	if typeOf(frame) == 0 || !s.keyed {
		return ErrForged
	}
	seq := binary.BigEndian.Uint64(frame[wire.OffsetSeq:])
	if !s.window.Check(seq) {
		return ErrReplay
	}
	if !s.Open(frame) {
		return ErrForged
	}
	s.window.Mark(seq)
	return nil
}

// Keyed reports whether the session has keys.
func (s *Session) Keyed() bool { return s.keyed }

// Format implements fmt.Formatter, so that no verb prints the keys.
func (s Session) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session keys") }

func (e End) other() End { return Watchdog - e }

// sends reports whether frames of type t are sealed with the session key of this
// end.
func (e End) sends(t wire.Type) bool {
	switch t {
	case wire.TypeBeat, wire.TypeBye:
		return true
	case wire.TypeWelcome:
		return e == Watchdog
	case wire.TypeRegister:
		return e == Conmgr
	}
	return false
}
