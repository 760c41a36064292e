// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// books counts who is watched.
type books struct {
	mu      sync.Mutex
	watched map[netip.Addr]int
}

func (b *books) Watch(peer netip.Addr)   { b.add(peer, 1) }
func (b *books) Unwatch(peer netip.Addr) { b.add(peer, -1) }

func (b *books) add(peer netip.Addr, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watched == nil {
		b.watched = map[netip.Addr]int{}
	}
	b.watched[peer] += n
}

func (b *books) of(addr string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watched[netip.MustParseAddr(addr)]
}

// startWatchedLoop runs a loop whose links the test has the books of.
func startWatchedLoop(t *testing.T) (*Loop, *books) {
	t.Helper()
	l, b := startLoop(t), &books{}
	on(l, func() bool { l.SetLinks(b); return true })
	return l, b
}

// The links to the peers of armed sessions are watched, at both ends, and no
// longer than they last.
func TestArmedPeersAreWatched(t *testing.T) {
	server, passive := startWatchedLoop(t)
	client, active := startWatchedLoop(t)
	r := &recorder{}
	ln, addr := serve(t, server, r)
	dial(client, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), addr.Port()), 1, &recorder{}) // nobody there
	sessions := []*Session{dial(client, addr, 2, &recorder{}), dial(client, addr, 3, &recorder{})}
	eventually(t, "two watched sessions at both ends", func() bool {
		return passive.of("127.0.0.1") == 2 && active.of("127.0.0.1") == 2
	})
	if n := active.of("127.0.0.9"); n != 0 {
		t.Errorf("the way to a peer without a session is watched %d times", n)
	}
	on(client, func() bool { sessions[0].Stop(wire.ByeStop); return true })
	eventually(t, "one watched session at both ends", func() bool {
		return passive.of("127.0.0.1") == 1 && active.of("127.0.0.1") == 1
	})
	on(server, func() bool { ln.StopAll(wire.ByeRestart); return true })
	eventually(t, "nobody watched", func() bool {
		return passive.of("127.0.0.1") == 0 && active.of("127.0.0.1") == 0
	})
}

// A hint about a silent peer ends the session after the grace, one about a peer
// that answers does nothing, and one about another peer concerns nobody.
func TestLinkLost(t *testing.T) {
	server := startLoop(t)
	passive := &recorder{}
	_, addr := serve(t, server, passive)
	p := newProxy(t, addr)
	client, links := startWatchedLoop(t)
	active := &recorder{}
	s := dial(client, p.addr, 1, active)
	eventually(t, "armed", func() bool { return links.of("127.0.0.1") == 1 })

	lost := func(peer string, grace time.Duration) {
		on(client, func() bool { client.LinkLost([]netip.Addr{netip.MustParseAddr(peer)}, grace); return true })
	}
	lost("127.0.0.2", 0)
	lost("127.0.0.1", testTimeout)
	eventually(t, "suspect, then heard", func() bool { _, ok := active.saw(wire.StateUp, wire.ReasonHeard); return ok })
	if c, down := active.saw(wire.StateDown, wire.ReasonLinkDown); down {
		t.Fatalf("a peer that answers was judged: %+v", c)
	}

	p.deafen()
	lost("127.0.0.1", testTimeout)
	on(client, func() bool { client.LinkBack([]netip.Addr{netip.MustParseAddr("127.0.0.1")}); return true })
	if _, ok := active.saw(wire.StateLate, wire.ReasonLinkUp); !ok {
		t.Error("the hint was not taken back")
	}
	lost("127.0.0.1", 0)
	eventually(t, "the verdict", func() bool { _, ok := active.saw(wire.StateDown, wire.ReasonLinkDown); return ok })
	on(client, func() bool { s.Stop(wire.ByeStop); return true })
	eventually(t, "nobody watched", func() bool { return links.of("127.0.0.1") == 0 })
}
