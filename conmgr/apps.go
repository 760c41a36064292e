// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// AppKind is how an application reaches its instance.
type AppKind string

// The kinds. Every connection to the application port begins as KindConsole.
// Control sessions come over conmgr.sock: they do not count as applications and
// SHOW APPLICATIONS leaves them out.
const (
	KindConsole     AppKind = "console"
	KindPassthrough AppKind = "passthrough"
	KindProxy       AppKind = "proxy"
	kindControl     AppKind = "control"
)

// errStaleView means that an instance faulted after the view was made by which
// it was chosen: route again, with a newer view.
var errStaleView = errors.New("the instance faulted meanwhile")

// holder is the end of an application that hangs on an instance. The methods are
// called once, in this order, on any goroutine, and must not block.
type holder interface {
	tell(notice []byte) // the application; notice is shared: read only
	insist()            // when all were told: who takes nothing is to know, too
	release()           // the instance's side, some time after that
}

// ender ends an application for conmgr's own reasons. Must not block.
type ender interface {
	end(notice []byte) // told, then closed
	kill()             // closed without a word
}

// app is one application. The registry owns it.
type app struct {
	id        uint64
	kind      AppKind        // changed by become alone
	peer      netip.AddrPort // invalid on Unix sockets
	local     netip.AddrPort
	connected time.Time
	ender     ender // changed by become alone

	// Guarded by Apps.mu.
	owner  owner
	state  string
	bound  bool
	since  mono.Instant // bound, or connected where that is known
	index  int
	target Target
	place  int // hanging's
}

// Apps knows every application and the instance it is bound to. It may be used
// from any goroutine.
type Apps struct {
	server *Server

	mu      sync.Mutex // guards the following
	nextID  uint64
	all     map[uint64]*app
	count   int              // without control sessions
	bound   map[int]*hanging // by instance; an entry stays
	faulted map[int]*faultMarks
	empty   []chan struct{} // closed when count becomes 0

	told queue[[]holder] // to be released
}

// faultMarks is when an instance was last lost to each target.
type faultMarks [len(targetNames)]mono.Instant

func newApps(s *Server) *Apps {
	return &Apps{
		server:  s,
		all:     map[uint64]*app{},
		bound:   map[int]*hanging{},
		faulted: map[int]*faultMarks{},
		told:    queue[[]holder]{ready: make(chan struct{}, 1)},
	}
}

// Count returns the number of applications, bound or not.
func (a *Apps) Count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// Bound returns how many applications hang on the instance with this index.
func (a *Apps) Bound(instance int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.bound[instance]; h != nil {
		return len(h.apps)
	}
	return 0
}

// Fault ends every application bound to instance f.Index, within the limits
// f.Only and f.Before, and returns how many were told. It does not wait for any
// of them. It records the event itself.
//
// An application that was routed by a View older than f.At is refused when it
// binds, so none slips through between the two. Therefore the View that shows
// the fault must be published with an At that is not before f.At.
func (a *Apps) Fault(f Fault) (told int) {
	view := a.server.opts.Source.View()
	if f.Index < 0 || f.Index >= len(view.Instances) || !a.wanted(f, view) {
		return 0
	}
	start := time.Now()
	victims := a.claim(f)
	notice := faultNotice(f, &view.Instances[f.Index])
	inParallel(victims.holders, func(h holder) { h.tell(notice) })
	took := time.Since(start)
	inParallel(victims.holders, holder.insist)
	a.told.push(victims.holders)
	a.markTold(victims.apps)
	a.server.recordFault(f, &view.Instances[f.Index], len(victims.apps), took)
	return len(victims.apps)
}

// markTold notes what has happened, after all have been told, and little by little:
// others want the lock.
func (a *Apps) markTold(apps []*app) {
	for part := range slices.Chunk(apps, 64) {
		a.mu.Lock()
		for _, m := range part {
			if m.bound && !a.bound[m.index].has(m) {
				m.bound, m.state = false, "told"
			}
		}
		a.mu.Unlock()
	}
}

// wanted applies close_on_role_change and close_on_stale_primary.
func (a *Apps) wanted(f Fault, v *View) bool {
	switch {
	case f.Only == nil:
		return true
	case v.Instances[f.Index].Loser:
		return a.server.opts.CloseOnStalePrimary
	}
	return a.server.opts.CloseOnRoleChange
}

// claim marks the fault and takes its applications off the instance, so that
// each is told once. What they are themselves is still to be marked.
func (a *Apps) claim(f Fault) (victims hanging) {
	a.mu.Lock()
	defer a.mu.Unlock()
	marks := a.faulted[f.Index]
	if marks == nil {
		marks = new(faultMarks)
		a.faulted[f.Index] = marks
	}
	for t := range marks {
		if f.Only == nil || slices.Contains(f.Only, Target(t)) {
			marks[t] = max(marks[t], f.At)
		}
	}
	h := a.bound[f.Index]
	switch {
	case h == nil:
		return victims
	case f.Only == nil && f.Before.IsZero():
		return h.takeAll()
	}
	return h.take(func(m *app) bool { return m.concerned(f) })
}

// concerned applies the limits of a fault to an application of its instance.
func (m *app) concerned(f Fault) bool {
	if !f.Before.IsZero() && !m.since.Before(f.Before) {
		return false
	}
	return f.Only == nil || slices.Contains(f.Only, m.target)
}

// inParallel calls do for each holder, on as many goroutines as Go code may run on
// when the list is long: while one of those processors is idle, a thread sleeps in the
// runtime's epoll_wait, and each of our own sockets that changes its state wakes it.
// Each goroutine gives way often, to the heartbeat's loop above all.
func inParallel(list []holder, do func(holder)) {
	const worthIt, giveWay = 64, 32
	workers := min(runtime.GOMAXPROCS(0), len(list)/worthIt+1)
	var wg sync.WaitGroup
	for part := range slices.Chunk(list, max(1, (len(list)+workers-1)/workers)) {
		wg.Go(func() {
			for i, h := range part {
				do(h)
				if i%giveWay == giveWay-1 {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
}

// add registers an application that is not bound yet.
func (a *Apps) add(m *app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nextID++
	m.id = a.nextID
	a.all[m.id] = m
	if m.kind != kindControl {
		a.count++
	}
}

// remove forgets an application.
func (a *Apps) remove(m *app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unbindLocked(m)
	delete(a.all, m.id)
	if m.kind == kindControl {
		return
	}
	if a.count--; a.count == 0 {
		for _, c := range a.empty {
			close(c)
		}
		a.empty = nil
	}
}

// bind hangs the application on an instance that was chosen by a view made at
// the instant at; h is told when it faults. A binding before is given up.
// It returns errStaleView when a fault of that instance is newer than at.
func (a *Apps) bind(m *app, index int, target Target, at mono.Instant, h holder) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if marks := a.faulted[index]; marks != nil && marks[target].After(at) {
		return errStaleView
	}
	a.unbindLocked(m)
	m.bound, m.index, m.target = true, index, target
	m.since = a.server.opts.Clock()
	if a.bound[index] == nil {
		a.bound[index] = new(hanging)
	}
	a.bound[index].add(m, h)
	return nil
}

// hold puts another holder in the place of the one that the application was bound
// with: what both do at a fault is the same.
func (a *Apps) hold(m *app, end holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h := a.bound[m.index]; m.bound && h.has(m) {
		h.holders[m.place] = end
	}
}

// unbind takes the application off its instance, if any.
func (a *Apps) unbind(m *app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unbindLocked(m)
}

func (a *Apps) unbindLocked(m *app) {
	if h := a.bound[m.index]; m.bound && h.has(m) { // not just taken by a fault
		h.remove(m)
	}
	m.bound = false
}

// become makes a console application that has only started one of another kind.
func (a *Apps) become(m *app, kind AppKind, e ender) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.kind, m.ender, m.state = kind, e, "connecting"
}

// connected notes that the application has reached its instance just now.
func (a *Apps) connected(m *app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.state, m.since = "connected", a.server.opts.Clock()
}

// setState changes the word that SHOW APPLICATIONS prints.
func (a *Apps) setState(m *app, state string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m.state = state
}

// list returns copies of all applications but control sessions, oldest first.
func (a *Apps) list() []app {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]app, 0, a.count)
	for _, m := range a.all {
		if m.kind != kindControl {
			out = append(out, *m)
		}
	}
	slices.SortFunc(out, func(x, y app) int { return cmp.Compare(x.id, y.id) })
	return out
}

// enders returns the ends of all applications, of control sessions too when
// asked for.
func (a *Apps) enders(control bool) []ender {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ender
	for m := range maps.Values(a.all) {
		if control || m.kind != kindControl {
			out = append(out, m.ender)
		}
	}
	return out
}

// gone returns a channel that is closed when no application is left.
func (a *Apps) gone() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := make(chan struct{})
	if a.count == 0 {
		close(c)
	} else {
		a.empty = append(a.empty, c)
	}
	return c
}

// setOwner keeps the owner found for an application.
func (a *Apps) setOwner(id uint64, o owner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.all[id]; m != nil {
		m.owner = o
	}
}
