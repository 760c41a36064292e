// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
)

// Links watches the links that lead to peers, and is told which peers matter: those
// of armed sessions. agent/linkhint has one. Its methods are called on the loop
// goroutine and must not block; each Watch is taken back by one Unwatch.
type Links interface {
	Watch(peer netip.Addr)
	Unwatch(peer netip.Addr)
}

// SetLinks gives the loop somebody who watches links. To be called before Run.
func (l *Loop) SetLinks(links Links) { l.links = links }

// LinkLost hands the hint that the links to some peers are lost to all sessions with
// them; see heartbeat.Machine.LinkLost.
func (l *Loop) LinkLost(peers []netip.Addr, grace time.Duration) {
	l.hint(peers, func(s *Session, out *heartbeat.Output) { s.m.LinkLost(l.now, grace, out) })
}

// LinkBack takes the hint back.
func (l *Loop) LinkBack(peers []netip.Addr) {
	l.hint(peers, func(s *Session, out *heartbeat.Output) { s.m.LinkBack(l.now, out) })
}

// hint looks at every session once, however many peers there are.
func (l *Loop) hint(peers []netip.Addr, call func(*Session, *heartbeat.Output)) {
	named := make(map[netip.Addr]bool, len(peers))
	for _, peer := range peers {
		named[peer] = true
	}
	for _, s := range slices.Clone(l.sessions) {
		if s.watching && named[s.way()] {
			s.step(func(out *heartbeat.Output) { call(s, out) })
		}
	}
}

// followLink watches the way to the peer of an armed session, and no other.
func (s *Session) followLink(armed bool) {
	links := s.loop().links
	if links == nil {
		return
	}
	moved := s.active != nil && s.active.way != s.remote.Addr().Unmap()
	if s.watching && (!armed || moved) {
		s.watching = false
		links.Unwatch(s.way())
	}
	if armed && !s.watching {
		if s.active != nil {
			s.active.way = s.remote.Addr().Unmap()
		}
		s.watching = true
		links.Watch(s.way())
	}
}

// way is the address whose link is watched: an Active end may be about to dial
// another one.
func (s *Session) way() netip.Addr {
	if s.active != nil {
		return s.active.way
	}
	return s.remote.Addr().Unmap()
}
