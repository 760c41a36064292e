// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// polling is the state of the looks at counters.
type polling struct {
	stale   bool // other devices may be on the ways now
	ticker  *time.Ticker
	changed []int        // kept for its memory
	warned  map[int]bool // devices whose counter could not be opened: said once
}

// tick is nil while there is nothing to look at.
func (p *polling) tick() <-chan time.Time {
	if p.ticker == nil {
		return nil
	}
	return p.ticker.C
}

func (p *polling) stop() {
	if p.ticker != nil {
		p.ticker.Stop()
		p.ticker = nil
	}
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
	opened, failed := w.counter.keep(wanted)
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
	if len(w.counter.files) == 0 {
		p.stop()
	} else if p.ticker == nil {
		p.ticker = time.NewTicker(counterEvery)
		w.counter.last = clock.Now()
	}
}

// polled are the devices whose counters are looked at.
func (w *Watcher) polled() []int {
	if w.cfg.All {
		return w.table.up()
	}
	return w.table.onPaths()
}

// lookAtCounters looks once at each.
func (w *Watcher) lookAtCounters() {
	p, c := &w.polling, w.counter
	before, now := c.last, clock.Now()
	c.last = now
	p.changed = c.look(p.changed[:0])
	for _, index := range p.changed {
		w.check(index, seen{source: Counter, at: now, since: before})
	}
	if len(p.changed) > 0 {
		p.stale = true // a file that ended is opened again when its device is there
	}
}
