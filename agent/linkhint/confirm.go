// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// What any source says is only the reason to look: the table gets nothing but what
// the kernel has answered. So a message that is older than the state that is known
// already changes nothing, and what two sources tell is told once.

// doubt is a hint that came before the kernel's state changed: fentry and kprobe
// run on entry of netif_carrier_off.
type doubt struct {
	hint  carrierEvent
	looks int // so far
}

// The state changes within microseconds of the hint, unless that processor is
// taken away in between.
const (
	doubtEvery = time.Millisecond
	doubtLooks = 6 // one at once, the others within about 5 ms
)

// takeHint looks at the device that a source names.
func (w *Watcher) takeHint(hint carrierEvent, ok bool) {
	if !ok {
		w.replaceSource()
		return
	}
	w.try(doubt{hint: hint})
}

// try looks once, and keeps the doubt for another look when the state is not yet
// what the hint says. A later hint of the same device replaces an earlier one.
func (w *Watcher) try(d doubt) {
	h := d.hint
	now := w.check(h.index, seen{source: w.hints.kind(), at: h.at, since: h.at})
	d.looks++
	settled := !now.up || now.carrier != h.lost
	if settled || d.looks >= doubtLooks {
		delete(w.doubts, h.index)
		return
	}
	if len(w.doubts) == 0 {
		w.doubtTime.Reset(doubtEvery)
	}
	w.doubts[h.index] = d
}

// lookAgain tries all doubts.
func (w *Watcher) lookAgain() {
	doubts := w.doubts
	w.doubts = make(map[int]doubt, len(doubts))
	for _, d := range doubts {
		w.try(d)
	}
}

// check looks at a device and takes over what it is now. It returns the zero
// device for one that is gone or cannot be looked at.
func (w *Watcher) check(index int, s seen) device {
	now, found, err := w.kernel.device(index)
	switch {
	case err != nil:
		w.missed(err)
	case found:
		w.setDevice(now, s)
	default:
		w.removeDevice(index, s)
	}
	return now
}

func (w *Watcher) setDevice(now device, s seen) {
	old := w.table.devices[now.index]
	if old == now {
		return
	}
	e := event(now, changed(old, now), s)
	w.changedDevices()
	w.tell(e, w.table.setDevice(now, e))
}

func (w *Watcher) removeDevice(index int, s seen) {
	old, known := w.table.devices[index]
	if !known {
		return
	}
	e := event(old, Removed, s)
	w.changedDevices()
	w.tell(e, w.table.removeDevice(index, e))
}

// event is told by the source that was the reason to look.
func event(d device, k Kind, s seen) Event {
	e := Event{Index: d.index, Name: d.name, Kind: k, Source: s.source, At: s.at, Latency: -1}
	if s.since != 0 {
		e.Latency = clock.Now().Sub(s.since)
	}
	return e
}

// changedDevices: the kernel removes the IPv4 routes of a device that is set down
// without a message, and may pass over next hops without a carrier
// (ignore_routes_with_linkdown).
func (w *Watcher) changedDevices() {
	w.polling.stale = true
	w.staleRoutes()
}

// takeNews looks at each device that rtnetlink says something new of. An error is
// the end of rtnetlink.
func (w *Watcher) takeNews() error {
	n, err := w.rt.take()
	if err != nil {
		return err
	}
	if n.routes {
		w.staleRoutes()
	}
	if n.all {
		w.readAll()
		return nil
	}
	for _, d := range n.devices {
		known, ok := w.table.devices[d.device.index]
		if d.gone && ok || !d.gone && known != d.device {
			w.check(d.device.index, told(clock.Now()))
		}
	}
	return nil
}

// told is the time of what rtnetlink tells: it has no time of its own.
func told(now mono.Instant) seen { return seen{source: Rtnetlink, at: now} }

// readAll is the answer to whatever was missed.
func (w *Watcher) readAll() {
	devices, err := w.kernel.devices()
	if err != nil {
		w.missed(err)
		return
	}
	w.round.blind = false
	w.staleRoutes()
	now := told(clock.Now())
	gone := make(map[int]bool)
	for index := range w.table.devices {
		gone[index] = true
	}
	for _, d := range devices {
		delete(gone, d.index)
		w.setDevice(d, now)
	}
	// An interrupted answer may lack a device that is there.
	for _, index := range sorted(gone) {
		w.check(index, now)
	}
}

// missed has all read again with the next round, after a look that failed.
func (w *Watcher) missed(err error) {
	if !w.round.blind {
		w.log.Warn("devices cannot be looked at", "err", err)
	}
	w.round.blind, w.round.readAll = true, true
	w.staleRoutes()
}
