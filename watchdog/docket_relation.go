// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"container/heap"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// relationState is drawn above [Docket].
type relationState uint8

const (
	relationNew relationState = iota
	relationArmed
	relationWaiting
	relationSpared
	relationSuspended
	relationWarranted
)

var relationNames = []string{"new", "armed", "waiting", "spared", "suspended", "warranted"}

func (s relationState) String() string { return nameOf(relationNames, int(s)) }

// relation is one of thousands as long as it is armed: what comes after that is
// in a block of its own.
type relation struct {
	client            Client
	session           uint64 // 0 when restored
	timeout, interval time.Duration
	armed             mono.Instant
	generation        uint32
	state             relationState
	*ending
}

// ending is how a relation ended, and what becomes of it.
type ending struct {
	kase      Case
	reason    wire.Reason
	ownPause  bool
	hostAlive bool // its host is known to have lived after the verdict
	granted   bool // the policy's wait has been given
	dryRun    bool // Warranted: nobody is killed
	lastValid mono.Instant
	verdict   mono.Instant
	silence   time.Duration
	deadline  mono.Instant // Waiting: judged then
	wake      mono.Instant // Waiting: looked at then, at least four times in a wait
	slot      int          // Waiting: index in the heap + 1, else 0
	warrant   uint64       // Warranted: by which
}

// unended is the ending of all that are new or armed; nobody writes to it.
var unended = new(ending)

// View is one relation as status shows it.
type View struct {
	Client
	State      string // armed, waiting, spared, suspended, warranted
	Session    uint64
	Timeout    time.Duration
	Armed      mono.Instant
	Generation uint64 // armed sessions of this conmgr, the present one included
	Case       Case   // not while armed, nor are the following
	Reason     wire.Reason
	Silence    time.Duration
	Verdict    mono.Instant
	Until      mono.Instant // of a wait
	Warrant    uint64
}

func (r *relation) view() View {
	return View{
		Client: r.client, State: r.state.String(), Session: r.session, Timeout: r.timeout, Armed: r.armed,
		Generation: uint64(r.generation), Case: r.kase, Reason: r.reason, Silence: r.silence,
		Verdict: r.verdict, Until: r.deadline, Warrant: r.warrant,
	}
}

// Of returns the relation that an armed session belongs to.
func (d *Docket) Of(session uint64) (v View, ok bool) {
	r := d.sessions[session]
	if r == nil {
		return v, false
	}
	return r.view(), true
}

// Unarmed returns the relations without an armed session, in no order.
func (d *Docket) Unarmed() []View {
	var views []View
	for _, site := range d.sites {
		for _, r := range site {
			if r.state != relationArmed {
				views = append(views, r.view())
			}
		}
	}
	return views
}

// View returns all relations, ordered by address and conmgr.
func (d *Docket) View() []View {
	views := make([]View, 0, d.count)
	for _, r := range d.sorted() {
		views = append(views, r.view())
	}
	return views
}

// relation finds or makes the relation to a client. nil: the docket is full.
func (d *Docket) relation(now mono.Instant, c Client, out *Orders) *relation {
	if r := d.find(c); r != nil {
		return r
	}
	r := &relation{client: c, ending: unended}
	if d.count >= maxRelations || !d.room(now, c.Addr, out) {
		d.event(now, DocketOverflow, r, out)
		return nil
	}
	d.count++
	d.sites[c.Addr] = append(d.sites[c.Addr], r)
	return r
}

// find looks for a relation among the few of its address.
func (d *Docket) find(c Client) *relation {
	for _, r := range d.sites[c.Addr] {
		if r.client.Conmgr == c.Conmgr {
			return r
		}
	}
	return nil
}

// room makes place at an address. The relation that ended first gives way: a
// warrant ends a whole address, so the younger ones speak for it.
func (d *Docket) room(now mono.Instant, addr netip.Addr, out *Orders) bool {
	site := d.sites[addr]
	if len(site) < maxPerSite {
		return true
	}
	var oldest *relation
	for _, r := range site {
		ended := r.state != relationArmed && r.state != relationWarranted
		if ended && (oldest == nil || r.verdict.Before(oldest.verdict)) {
			oldest = r
		}
	}
	if oldest == nil {
		return false
	}
	d.event(now, DocketOverflow, oldest, out)
	d.remove(oldest, out)
	return true
}

func (d *Docket) remove(r *relation, out *Orders) {
	d.waits.remove(r)
	if d.warrants[r.warrant] == r {
		delete(d.warrants, r.warrant)
	}
	d.count--
	addr := r.client.Addr
	site := slices.DeleteFunc(d.sites[addr], func(o *relation) bool { return o == r })
	if len(site) == 0 {
		delete(d.sites, addr)
	} else {
		d.sites[addr] = site
	}
	out.Persist = true
}

func (d *Docket) sorted() []*relation {
	all := make([]*relation, 0, d.count)
	for _, site := range d.sites {
		all = append(all, site...)
	}
	slices.SortFunc(all, func(a, b *relation) int { return compareClients(a.client, b.client) })
	return all
}

func sortedIDs(m map[uint64]*relation) []uint64 { return slices.Sorted(maps.Keys(m)) }

// waitHeap orders the waiting relations by when they are looked at. It is used
// through popDue, put, remove and next only.
type waitHeap []*relation

func (h waitHeap) Len() int { return len(h) }
func (h waitHeap) Less(i, j int) bool {
	if h[i].wake != h[j].wake {
		return h[i].wake < h[j].wake
	}
	return compareClients(h[i].client, h[j].client) < 0
}
func (h waitHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

// Push is called by container/heap.
func (h *waitHeap) Push(x any) {
	r := x.(*relation)
	*h = append(*h, r)
	r.slot = len(*h)
}

// Pop is called by container/heap.
func (h *waitHeap) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	r.slot = 0
	return r
}

func (h *waitHeap) put(r *relation) {
	h.remove(r)
	heap.Push(h, r)
}

func (h *waitHeap) remove(r *relation) {
	if r.slot > 0 {
		heap.Remove(h, r.slot-1)
	}
}

func (h *waitHeap) popDue(now mono.Instant) *relation {
	if len(*h) == 0 || (*h)[0].wake.After(now) {
		return nil
	}
	return heap.Pop(h).(*relation)
}

func (h waitHeap) next() mono.Instant {
	if len(h) == 0 {
		return mono.Never
	}
	return h[0].wake
}
