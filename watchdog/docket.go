// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	// maxRelations bounds what all clients together can make a docket remember.
	maxRelations = 1 << 16
	// maxPerSite bounds the same for one address; watchdog admits 8 live
	// sessions of it, so the rest are relations that ended.
	maxPerSite = 64
	// maxTimeout rejects damaged records; see watchdog.max_heartbeat_timeout.
	maxTimeout = 24 * time.Hour
)

// Client is the far end of a session.
type Client struct {
	Addr        netip.Addr // IPv4-mapped addresses are unmapped
	Conmgr      wire.ID
	Incarnation uint64
}

// ArmedRecord is what must be known of a client after a restart of the agent.
type ArmedRecord struct {
	Client
	Interval, Timeout time.Duration
	Armed             mono.Instant // when its last session was armed
}

// Docket is the policy of design section 8.3: it turns the ends of armed
// heartbeat sessions into warrants. It is pure: no goroutine, socket, clock or
// logger; the caller passes the present instant, which must not go backwards,
// and carries out the [Orders]. It is not safe for concurrent use.
//
// A relation is what the docket knows of one conmgr at one address:
//
//	            armed                 ends, policy wait;
//	(unknown) --------> Armed ---------------------------> Waiting
//	    |               ^ ^ ^ ^        own pause, restart  |  |
//	    |   comeback    | | | +----------------------------+  | one timeout
//	    |  from any ----+ | |                                 | without comeback
//	    |  other state    | |     ends, policy terminate      v
//	    |                 | |   +------------------------> (judge)
//	    | restored        | |                              |   |   |
//	    +---> Waiting     | |     kills paused             |   |   | else
//	                      | +--- Suspended <---------------+   |   v
//	                      |          | pause over: Waiting     | Warranted
//	                      |          |                         |   |
//	                      +------- Spared <--------------------+   | done,
//	                                 | shield gone: judge again    | comeback
//	                                 v                             v
//	                              Warranted                     (unknown)
//
// ends with policy ignore, BYE leave: (unknown). Judge also drops a relation
// whose policy says ignore or whose address is protected by now.
//
// Rules beyond the drawing:
//
//   - Unarmed sessions and protected addresses never enter.
//   - A wait lasts one timeout of the session, 3 s at least.
//   - A wait is watched in quarters: when the caller comes late by more than one
//     of them, the agent itself stood still and the wait starts anew (design 4.3).
//   - Shield (watchdog.shared_address = spare): an armed session of another
//     conmgr at the address. Where the host is known to live, a waiting one
//     shields too: ending an address ends its sessions as well. A relation that
//     was spared once counts as one whose host lives.
//   - A warrant covers the spared relations of its address; its Verdict is the
//     latest of theirs.
//   - A session that was replaced gives no warrant; but when the one that took
//     over is never armed, the client is judged one timeout later as silent.
//     Otherwise a client could die unnoticed between HELLO and the first beat.
//   - A restart that never comes back is judged as a stop.
//
// The caller must not feed the ends that its own stopping causes.
type Docket struct {
	policy      PolicyConfig
	sites       map[netip.Addr][]*relation // all of them, by address
	count       int                        // of them
	terminated  map[clientKey]struct{}     // whom a warrant ended, until they are armed again
	sessions    map[uint64]*relation       // armed sessions only
	warrants    map[uint64]*relation       // who leads an open warrant
	waits       waitHeap
	lastID      uint64
	pausedUntil mono.Instant // zero: kills are allowed
}

// clientKey tells clients apart whatever process of theirs is meant.
type clientKey struct {
	addr   netip.Addr
	conmgr wire.ID
}

// NewDocket returns an empty docket.
func NewDocket(p PolicyConfig) *Docket {
	return &Docket{
		policy:     p,
		sites:      make(map[netip.Addr][]*relation),
		terminated: make(map[clientKey]struct{}),
		sessions:   make(map[uint64]*relation),
		warrants:   make(map[uint64]*relation),
	}
}

// SetPolicy replaces the policy for decisions to come. What is decided stays:
// running warrants keep their DryRun and Replication.
func (d *Docket) SetPolicy(p PolicyConfig) { d.policy = p }

// Armed tells that valid beats have passed both ways in a session. An armed
// session of the same conmgr takes over from the one before; every wait of it
// and every open warrant of its address ends.
func (d *Docket) Armed(now mono.Instant, session uint64, c Client, timeout, interval time.Duration, protected bool, out *Orders) {
	c.Addr = plainAddr(c.Addr)
	if protected || d.policy.protects(c.Addr) {
		return
	}
	r := d.relation(now, c, out)
	if r == nil {
		return
	}
	if r.state != relationArmed && r.state != relationNew {
		d.event(now, DocketComeback, r, out)
	}
	d.closeSite(now, r, out)
	delete(d.terminated, clientKey{c.Addr, c.Conmgr})
	delete(d.sessions, r.session)
	*r = relation{
		client: c, state: relationArmed, session: session, generation: r.generation + 1,
		timeout: timeout, interval: interval, armed: now, ending: unended,
	}
	d.sessions[session] = r
	out.Persist = true
	d.reweigh(now, c.Addr, out)
}

// Ended tells how a session ended. Changes that are no verdict, and sessions
// that were never armed, are protected or were replaced, are nothing to it.
func (d *Docket) Ended(now mono.Instant, session uint64, ch heartbeat.Change, out *Orders) {
	r := d.sessions[session]
	if r == nil || !ch.Verdict() {
		return
	}
	delete(d.sessions, session)
	kase := caseOf(ch.Reason)
	r.ending = &ending{
		kase: kase, reason: ch.Reason, ownPause: ch.OwnPause, hostAlive: kase.HostAlive(),
		lastValid: ch.LastValid, silence: ch.Silence, verdict: ch.At,
	}
	switch d.policy.verdictOf(ch.Reason, ch.OwnPause) {
	case Ignore:
		d.ignore(now, r, out)
	case Wait:
		d.wait(now, r, true, out)
		d.event(now, DocketWaiting, r, out)
	default:
		d.judge(now, r, out)
	}
	d.reweigh(now, r.client.Addr, out)
}

// Restore takes over what an earlier life of the agent knew. Each client has
// one timeout of its own from now to arm a session; call it when the agent is
// ready to accept.
func (d *Docket) Restore(now mono.Instant, armed []ArmedRecord, out *Orders) {
	for _, rec := range armed {
		rec.Addr = plainAddr(rec.Addr)
		if !rec.Addr.IsValid() || rec.Timeout <= 0 || rec.Timeout > maxTimeout ||
			d.find(rec.Client) != nil || d.policy.protects(rec.Addr) {
			continue
		}
		r := d.relation(now, rec.Client, out)
		if r == nil {
			continue
		}
		*r = relation{
			client: rec.Client, timeout: rec.Timeout, interval: rec.Interval, armed: rec.Armed,
			ending: &ending{kase: CaseRestored, reason: wire.ReasonTimeout, verdict: now},
		}
		d.wait(now, r, false, out)
		d.event(now, DocketRestored, r, out)
	}
	out.Persist = true
}

// Done tells that a warrant has been executed. An id that is not open, such as
// one that was closed meanwhile, is ignored.
func (d *Docket) Done(now mono.Instant, id uint64, out *Orders) {
	lead := d.warrants[id]
	if lead == nil {
		return
	}
	addr := lead.client.Addr
	for _, r := range slices.Clone(d.sites[addr]) {
		if r.state == relationWarranted && r.warrant == id {
			d.noteTerminated(r)
			d.remove(r, out)
		}
	}
	d.reweigh(now, addr, out)
}

// Alive tells that the last look found the host of a warrant alive: only its
// conmgr is silent. The warrant is over; watchdog.on_hang decides anew.
func (d *Docket) Alive(now mono.Instant, id uint64, out *Orders) {
	lead := d.warrants[id]
	if lead == nil {
		return
	}
	d.revoke(lead, relationSpared)
	lead.kase, lead.hostAlive = CaseHang, true
	switch d.policy.OnHang {
	case Ignore:
		d.ignore(now, lead, out)
	case Wait:
		d.wait(now, lead, true, out)
		d.event(now, DocketWaiting, lead, out)
	default:
		d.judge(now, lead, out)
	}
	d.reweigh(now, lead.client.Addr, out)
}

// Pause suspends kills until the given instant ([mono.Never]: until resumed);
// an instant that is not after now resumes. Running warrants are closed. What
// would be terminated meanwhile is kept as suspended and gets one more timeout
// to come back when the pause ends.
func (d *Docket) Pause(now, until mono.Instant, out *Orders) {
	if !until.After(now) {
		d.resume(now, out)
		return
	}
	d.pausedUntil = until
	out.Events = append(out.Events, DocketEvent{At: now, Kind: DocketPaused, Until: until})
	for _, id := range sortedIDs(d.warrants) {
		lead := d.warrants[id]
		out.Close = append(out.Close, id)
		d.revoke(lead, relationSuspended)
		d.event(now, DocketSuspended, lead, out)
	}
}

// PausedUntil returns the end of the pause, zero when kills are allowed.
func (d *Docket) PausedUntil() mono.Instant { return d.pausedUntil }

func (d *Docket) resume(now mono.Instant, out *Orders) {
	if d.pausedUntil.IsZero() {
		return
	}
	d.pausedUntil = 0
	out.Events = append(out.Events, DocketEvent{At: now, Kind: DocketResumed})
	for _, r := range d.sorted() {
		if r.state == relationSuspended {
			d.wait(now, r, true, out)
			d.event(now, DocketWaiting, r, out)
		}
	}
}

// Tick judges the waits that are over.
func (d *Docket) Tick(now mono.Instant, out *Orders) {
	if !d.pausedUntil.IsZero() && !now.Before(d.pausedUntil) {
		d.resume(now, out)
	}
	for {
		r := d.waits.popDue(now)
		if r == nil {
			return
		}
		d.expiredWait(now, r, out)
	}
}

// Next returns when Tick wants to be called, [mono.Never] for not at all.
func (d *Docket) Next() mono.Instant {
	next := d.waits.next()
	if !d.pausedUntil.IsZero() {
		next = next.Min(d.pausedUntil)
	}
	return next
}

// Terminated reports whether a warrant has ended, or is ending, the database
// sessions of a client since it was armed last. A client that was frozen and cut
// off meanwhile does not know.
func (d *Docket) Terminated(addr netip.Addr, conmgr wire.ID) bool {
	addr = plainAddr(addr)
	if _, ok := d.terminated[clientKey{addr, conmgr}]; ok {
		return true
	}
	r := d.find(Client{Addr: addr, Conmgr: conmgr})
	return r != nil && r.state == relationWarranted && !r.dryRun
}

// noteTerminated remembers whom a warrant ended; of too many, it forgets one.
func (d *Docket) noteTerminated(r *relation) {
	if r.dryRun {
		return
	}
	if len(d.terminated) >= maxRelations {
		for key := range d.terminated {
			delete(d.terminated, key)
			break
		}
	}
	d.terminated[clientKey{r.client.Addr, r.client.Conmgr}] = struct{}{}
}

// Len returns how many relations there are.
func (d *Docket) Len() int { return d.count }

// Records returns what must survive a restart of the agent: every client that
// is armed or not yet judged to the end.
func (d *Docket) Records() []ArmedRecord {
	records := make([]ArmedRecord, 0, d.count)
	for _, r := range d.sorted() {
		records = append(records, ArmedRecord{
			Client: r.client, Interval: r.interval, Timeout: r.timeout, Armed: r.armed,
		})
	}
	return records
}

// plainAddr unmaps an IPv4-mapped address, so that a client is one client
// whichever socket family it came through.
func plainAddr(a netip.Addr) netip.Addr { return a.Unmap() }

func compareClients(a, b Client) int {
	if c := a.Addr.Compare(b.Addr); c != 0 {
		return c
	}
	return cmp.Or(slices.Compare(a.Conmgr[:], b.Conmgr[:]), cmp.Compare(a.Incarnation, b.Incarnation))
}
