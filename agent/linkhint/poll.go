// SPDX-License-Identifier: Apache-2.0

package linkhint

import "github.com/pgconmgr/pgconmgr/agent/mono/clock"

// polling is the state of the looks at counters.
type polling struct {
	stale  bool         // other devices may be on the ways now
	warned map[int]bool // devices whose counter could not be opened: said once
	still  bool         // no counter is looked at, which was said
}

// counted is nil while no counters are looked at.
func (w *Watcher) counted() <-chan struct{} {
	if w.counter == nil {
		return nil
	}
	return w.counter.news
}

// choosePolled opens the counters of the devices on the ways to watched peers, and
// closes the others. It waits for the end of a round.
func (w *Watcher) choosePolled() {
	p := &w.polling
	if w.counter == nil || !p.stale || len(w.round.waiting) > 0 {
		return
	}
	p.stale = false
	var wanted []device
	for _, index := range w.polled() {
		wanted = append(wanted, w.table.devices[index])
	}
	opened, failed, err := w.counter.keep(wanted)
	if err != nil && !p.still {
		w.log.Error("the counters of devices are not looked at: their losses come later", "err", err)
	}
	p.still = err != nil
	for index, err := range failed {
		if !p.warned[index] {
			w.log.Warn("the counter of a device cannot be read: its losses come later", "err", err)
		}
		p.warned[index] = true
	}
	for _, index := range opened {
		delete(p.warned, index)
		w.check(index, told(clock.Now())) // what happened before the first look
	}
}

// polled are the devices whose counters are looked at.
func (w *Watcher) polled() []int {
	if w.cfg.All {
		return w.table.up()
	}
	return w.table.onPaths()
}

// takeCounted looks at the devices whose counters have changed.
func (w *Watcher) takeCounted() {
	for _, c := range w.counter.take() {
		w.check(c.index, seen{source: Counter, at: c.at, since: c.since})
		w.polling.stale = true // a file that ended is opened again when its device is there
	}
}
