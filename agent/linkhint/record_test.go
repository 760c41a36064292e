// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// recorder keeps what a Watcher tells.
type recorder struct {
	hold func() // may hold the Watcher up when it tells of an event

	mu     sync.Mutex // guards the following
	events []stamped
	paths  []Path
}

// stamped is an event and when it was delivered.
type stamped struct {
	Event
	delivered int64 // on the boot-time clock
}

func (r *recorder) onEvent(e Event) {
	if r.hold != nil {
		r.hold()
	}
	r.add(stamped{e, int64(clock.Now())})
}

func (r *recorder) add(e stamped) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) onPaths(paths []Path) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths = append(r.paths, paths...)
}

// find returns the last event of a device of the kind, since the number of events.
func (r *recorder) find(name string, kind Kind, since int) (found stamped, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events[since:] {
		if e.Name == name && e.Kind == kind {
			found, ok = e, true
		}
	}
	return found, ok
}

// count is how many events there were.
func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// countOf is how many there were of a device of the kind.
func (r *recorder) countOf(name string, kind Kind) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == name && e.Kind == kind {
			n++
		}
	}
	return n
}

// lastOf is the last event of a device.
func (r *recorder) lastOf(name string) (last Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == name {
			last = e.Kind
		}
	}
	return last
}

// last returns what was told last of a peer; a peer that nothing was told of is
// good.
func (r *recorder) last(peer netip.Addr) (last Path) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.paths {
		if p.Peer == peer {
			last = p
		}
	}
	return last
}

// told is how often something was told of a peer.
func (r *recorder) told(peer netip.Addr) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.paths {
		if p.Peer == peer {
			n++
		}
	}
	return n
}

func (r *recorder) mustEvent(t testing.TB, name string, kind Kind, since int) (e stamped) {
	t.Helper()
	agenttest.Eventually(t, limit, fmt.Sprintf("%s: %v", name, kind), func() (ok bool) {
		e, ok = r.find(name, kind, since)
		return ok
	})
	return e
}

func (r *recorder) mustPath(t testing.TB, peer netip.Addr, want State) Path {
	t.Helper()
	agenttest.Eventually(t, limit, fmt.Sprintf("%v: %v", peer, want), func() bool { return r.last(peer).State == want })
	return r.last(peer)
}
