// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"crypto/rand"
	"iter"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Counts is what admission weighs: the armed sessions in total, and those of the
// address, armed or shaking hands; without the ones that the HELLO's own conmgr
// has at its address.
type Counts struct {
	Total     int
	OfAddress int
}

// Admission is the answer to a HELLO.
type Admission struct {
	Code      wire.Code // 0 admits
	Limit     uint32    // goes with the code
	Protected bool      // admitted, but never judged
	Ended     bool      // see heartbeat.Opening
}

// Acceptor decides who may open a session and is told what happens to it.
type Acceptor interface {
	Handler
	// Admit weighs a HELLO; keyed says that it was proven with a key.
	Admit(remote netip.AddrPort, hello *wire.Hello, keyed bool, c Counts) Admission
	// TurnedAway is told of a HELLO that was refused without asking: in another
	// version of the protocol (wire.ErrVersion), or not proven as it has to be
	// (agent/key's errors).
	TurnedAway(remote netip.AddrPort, err error)
}

// ListenStats count what came to a listener and belonged to no session.
type ListenStats struct {
	Malformed uint64 // not a frame
	Foreign   uint64 // frames of no session, or of another address
	Cookies   uint64 // strangers on UDP that were asked to prove their address
	Refused   uint64 // HELLOs refused
	Forged    uint64 // frames in a session that were not its conmgr's, or not new
}

// ListenConfig describes a listener.
type ListenConfig struct {
	Self        wire.ID
	Incarnation uint64
	// NewSession returns a session id that was never used before; they rise.
	NewSession func() uint64
	// HandshakeTimeout bounds the time from accept to an armed session.
	HandshakeTimeout time.Duration
	// HalfOpen bounds how many connections may be shaking hands at a time; the
	// oldest is evicted for a newer one.
	HalfOpen int
	// Keeper keeps the listening sockets for the next process; nil keeps none.
	Keeper SocketKeeper
}

// Listener serves Passive sessions on any number of addresses. All its sessions
// carry one instance state.
type Listener struct {
	loop      *Loop
	cfg       ListenConfig
	acceptor  Acceptor
	socks     []*socket
	packets   []*packetSocket
	inherited []inherited // of an earlier process, not in use yet
	stopped   bool        // by StopAll
	instance  wire.Instance
	ring      *key.Ring // nil: no key is required
	cookies   *key.Cookies
	stats     ListenStats
	ended     Frames              // of sessions that have ended
	byID      map[uint64]*Session // all of them
	configs   configs
	unarmed   map[*Session]struct{}       // still shaking hands
	shaking   map[netip.AddrPort]*Session // those of them on UDP
	byAddr    map[netip.Addr][]*Session
	armed     int         // how many are armed
	silent    int         // how many of those are late or suspect
	half      []*halfOpen // oldest first
	spare     int         // descriptor kept for accepting when there are none left
}

// Listen makes a listener without addresses; see [Listener.Add].
func (l *Loop) Listen(cfg ListenConfig, a Acceptor) *Listener {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	ln := &Listener{
		loop: l, cfg: cfg, acceptor: a, cookies: key.NewCookies(secret), spare: openSpare(),
		byID: map[uint64]*Session{}, unarmed: map[*Session]struct{}{}, byAddr: map[netip.Addr][]*Session{}, shaking: map[netip.AddrPort]*Session{},
	}
	ln.configs = newConfigs(heartbeat.Config{
		Role: heartbeat.Passive, ConnectTimeout: cfg.HandshakeTimeout,
		Self: cfg.Self, Incarnation: cfg.Incarnation, Instance: &ln.instance,
	})
	l.listeners = append(l.listeners, ln)
	return ln
}

// SetRing sets the keys of which one is required from now on; nil requires none.
// Sessions whose key is gone, or may not be used from their address any more, end.
// Call SetAddrs after it: UDP is served with keys only.
func (ln *Listener) SetRing(ring *key.Ring) {
	ln.ring = ring
	for _, s := range ln.byID {
		if k := ring.Renew(s.key); k != nil && k.Allows(s.remote.Addr()) {
			s.key = k
			continue
		}
		if s.key != nil || ring != nil {
			s.replace()
		}
	}
}

// SetInstance sets the state that beats carry and, when more than the WAL
// position has changed, sends it to every armed session at once.
func (ln *Listener) SetInstance(i wire.Instance) {
	old := ln.instance
	ln.instance = i
	old.WAL = i.WAL
	if old == i {
		return
	}
	for _, s := range ln.byID {
		s.step(func(out *heartbeat.Output) { s.m.Push(ln.loop.now, out) })
	}
}

// Sessions returns all sessions, armed or shaking hands, in no order.
func (ln *Listener) Sessions() iter.Seq[*Session] {
	return func(yield func(*Session) bool) {
		for _, s := range ln.byID {
			if !yield(s) {
				return
			}
		}
	}
}

// StopAll says BYE to every session and stops listening; a keeper goes on.
func (ln *Listener) StopAll(kind wire.ByeKind) {
	for len(ln.half) > 0 {
		ln.half[0].evict()
	}
	for _, s := range ln.byID {
		s.Stop(kind)
	}
	ln.stopped = true
	_ = ln.SetAddrs(nil) // after the goodbyes, which UDP sends through these sockets
	ln.closeSpare()
}
