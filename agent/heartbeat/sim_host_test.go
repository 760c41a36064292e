// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// host is a machine with one daemon: its driver, in the order that the package
// comment asks for.
type host struct {
	w      *world
	name   string
	side   int // 0 conmgr, 1 watchdog
	client int
	lives  uint64 // of the daemon

	file, ring *key.Ring    // the key file, and what the daemon has loaded of it
	cookies    *key.Cookies // watchdog's, of this life
	fullUntil  mono.Instant // watchdog: no room for more sessions until then

	up, crashed bool
	pausedUntil mono.Instant
	pauses      int
	due         mono.Instant // what the driver's timer is set to
	wakeAt      mono.Instant // when it really wakes, Never for not at all
	inbox       []func(now mono.Instant)
	ends        []*end
}

// end is one machine with what the oracle knows about it.
type end struct {
	h      *host
	m      *Machine
	conn   *conn
	client int
	proof
	oracle
}

func (e *end) String() string { return fmt.Sprintf("%s %x", e.h.name, e.m.Session()) }

func (h *host) start() {
	h.up, h.crashed = true, false
	h.lives++
	h.due, h.wakeAt = mono.Never, mono.Never
	h.ring, h.cookies = h.file, key.NewCookies([32]byte{byte(h.lives)})
	h.w.say("%s starts", h.name)
	if h.side == 0 {
		e := &end{h: h, client: h.client}
		cfg := h.config(Active)
		e.m = NewActive(cfg, h.w.now)
		h.ends = []*end{e}
	}
	h.wake(h.w.now)
}

func (h *host) config(role Role) Config {
	w := h.w
	return Config{
		Role: role, Interval: w.interval, Timeout: w.timeout,
		ConnectInterval: w.connectInterval, ConnectTimeout: w.connectTimeout, Datagram: w.datagram,
		Self: h.self(), Incarnation: h.lives, Instance: h.instance(),
		Nonce: func() wire.ID { return w.nonce(byte(h.client)) },
	}
}

func (h *host) self() wire.ID { return wire.ID{byte(h.side), byte(h.client)} }

// addr is where the daemon's packets come from.
func (h *host) addr() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + h.client)}) }

func (h *host) instance() *wire.Instance {
	if h.side == 0 {
		return nil
	}
	return &h.w.inst
}

// post puts input into the queue of the daemon and wakes it.
func (h *host) post(in func(now mono.Instant)) {
	if h.up {
		h.inbox = append(h.inbox, in)
		h.wake(h.w.now)
	}
}

// wake plans a pass a little after at, or at the end of a pause.
func (h *host) wake(at mono.Instant) {
	at = max(at, h.w.now).Add(h.w.between(0, h.w.timeout/100))
	if !at.Before(h.wakeAt) {
		return
	}
	h.wakeAt = at
	life := h.lives
	h.w.plan(at, func() { h.woken(at, life) })
}

func (h *host) woken(at mono.Instant, life uint64) {
	switch {
	case !h.up || h.lives != life || h.wakeAt != at:
	case h.w.now.Before(h.pausedUntil):
		h.wakeAt = h.pausedUntil
		h.w.plan(h.wakeAt, func() { h.woken(h.wakeAt, life) })
	default:
		h.pass()
	}
}

// pass is one turn of the driver's loop.
func (h *host) pass() {
	now := h.w.now
	h.wakeAt = mono.Never
	if late := now.Sub(h.due); h.due != mono.Never && late > h.w.timeout/4 {
		h.w.say("%s: this pass is late by %v", h.name, late)
		for _, e := range slices.Clone(h.ends) {
			e.notePause(now)
			e.step(func(out *Output) { e.m.Paused(now, late, out) })
		}
	}
	read := now // reading takes time; the pass judges by the instant it began
	for len(h.inbox) > 0 {
		in := h.inbox[0]
		h.inbox = h.inbox[1:]
		read = read.Add(h.w.between(0, h.w.timeout/500))
		in(read)
	}
	h.weighFuse(now)
	for _, e := range slices.Clone(h.ends) {
		if !e.m.Next().After(now) {
			e.step(func(out *Output) { e.m.Tick(now, out) })
			if !e.m.Next().After(now) {
				h.w.fail("%s: Tick at %v leaves Next %v behind it", e, now, now.Sub(e.m.Next()))
			}
		}
		e.checkBounds(now)
	}
	h.ends = slices.DeleteFunc(h.ends, func(e *end) bool { return e.m.stopped })
	h.due = now.Add(max(h.w.timeout/8, 5*ms))
	for _, e := range h.ends {
		h.due = h.due.Min(e.m.Next())
	}
	h.wake(h.due)
}

// weighFuse is the watchdog's: see agent/peer.
func (h *host) weighFuse(now mono.Instant) {
	armed, due := 0, false
	var dying []*end
	for _, e := range h.ends {
		if h.side == 1 && Armed(e.m.State()) {
			armed++
			due = due || !e.m.Deadline().After(now)
			if e.m.Dying(now) {
				dying = append(dying, e)
			}
		}
	}
	if !due || !FuseBlows(armed, len(dying)) {
		return
	}
	h.w.say("watchdog: the fuse holds %d of %d", len(dying), armed)
	for _, e := range dying {
		e.noteHold(now)
		e.step(func(out *Output) { e.m.Hold(now, out) })
	}
}

// step makes one call to the machine and carries out what it asks for.
func (e *end) step(call func(*Output)) {
	var out Output
	call(&out)
	for i := range out.Frames {
		e.noteSent(&out.Frames[i])
		if e.conn != nil {
			e.conn.send(e.h.side, e.encode(&out.Frames[i]))
		}
	}
	if out.Close != CloseNone && e.conn != nil {
		e.conn.close(e.h.side)
		e.conn = nil
	}
	if out.Dial {
		e.conn = e.h.w.dial(e.h, e)
	}
	for _, c := range out.Changes {
		e.noteChange(c)
		if e.h.side == 1 && c.To == wire.StateUp && c.From == wire.StateInit {
			e.replaceOlder()
		}
	}
}

// replaceOlder ends the other armed sessions of the same conmgr.
func (e *end) replaceOlder() {
	for _, other := range slices.Clone(e.h.ends) {
		if other != e && other.client == e.client && Armed(other.m.State()) {
			other.step(func(out *Output) { other.m.Replace(e.h.w.now, out) })
		}
	}
}

// restart ends the daemon and starts it again after d. Kind 0 is a kill, more
// than the known kinds a crash of the whole host.
func (h *host) restart(kind wire.ByeKind, d time.Duration) {
	if !h.up {
		return
	}
	crash := kind > wire.ByeLeave
	for _, e := range slices.Clone(h.ends) {
		if kind > 0 && !crash {
			e.leaving = true
			e.step(func(out *Output) { e.m.Stop(h.w.now, kind, out) })
		}
		if e.conn != nil && !crash {
			e.conn.close(h.side)
		} else if e.conn != nil && !h.w.datagram {
			e.conn.open[h.side] = false
		}
		e.conn = nil
	}
	h.up, h.crashed = false, crash
	h.ends, h.inbox = nil, nil
	h.w.after(d, h.start)
}
