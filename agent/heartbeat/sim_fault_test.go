// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// planFaults draws what goes wrong, and when everything is well again.
func (w *world) planFaults() {
	n := w.rng.IntN(7)
	phase := time.Duration(2*n) * w.timeout
	w.faultless = n == 0
	w.healthyAt = w.now.Add(phase)
	w.settledAt = w.healthyAt.Add(2*(w.connectInterval+w.connectTimeout) + 6*w.timeout)
	w.planRotation(phase)
	for range n {
		begin := w.between(0, phase)
		w.plan(epoch.Add(begin), func() { w.fault(phase - begin) })
	}
	w.plan(w.healthyAt, func() {
		w.say("---- all is well from here")
		for _, l := range w.links {
			l.heal()
		}
	})
}

// duration draws how long a fault lasts: from far below the timeout to far above.
func (w *world) duration(most time.Duration) time.Duration {
	scale := pick(w, w.timeout/8, w.timeout/4, w.timeout/2, w.timeout, 2*w.timeout, 5*w.timeout)
	return min(w.between(scale/2, scale+scale/2), most)
}

func (w *world) anyHost() *host {
	if w.chance(0.4) {
		return w.watchdog
	}
	return w.clients[w.rng.IntN(len(w.clients))]
}

// fault lets one thing go wrong, for no longer than most.
func (w *world) fault(most time.Duration) {
	l := w.links[w.rng.IntN(len(w.links))]
	h := w.anyHost()
	d := w.duration(most)
	switch w.rng.IntN(14) {
	case 0, 1:
		dir := w.rng.IntN(2)
		l.loss[dir] = w.rng.Float64() * 0.5
		w.say("fault: %.0f %% loss towards %s", 100*l.loss[dir], side(dir))
		w.after(d, func() { l.loss[dir] = 0 })
	case 2:
		l.jitter = w.between(0, w.timeout)
		l.dup = w.rng.Float64() * 0.3
		w.say("fault: up to %v of delay, %.0f %% duplicated", l.jitter, 100*l.dup)
		w.after(d, func() { l.jitter, l.dup = 0, 0 })
	case 3:
		dir := w.rng.IntN(2)
		w.say("fault: deaf towards %s for %v", side(dir), d)
		l.cut(d, dir)
	case 4:
		w.say("fault: partition of %d for %v", h.client, d)
		l.cut(d, 0, 1)
	case 5, 6:
		w.say("fault: %s pauses for %v", h.name, d)
		h.pausedUntil = max(h.pausedUntil, w.now.Add(d))
		h.pauses++
	case 7:
		kind := wire.ByeKind(w.rng.IntN(6)) // 0: killed, 5: its host crashes
		w.say("fault: %s restarts (%d) after %v", h.name, kind, d)
		h.restart(kind, d)
	case 8, 9:
		dirs := pick(w, []int{0}, []int{0, 1})
		w.say("fault: the watchdog's own link is cut for %v, directions %v", d, dirs)
		for _, l := range w.links {
			l.cut(d, dirs...)
		}
	case 10:
		if c := l.conn; c != nil && !w.datagram {
			w.say("fault: the connection of %d is reset on the way", l.conn.client.client)
			c.reset()
		}
	case 11:
		w.say("fault: the watchdog is full for %v", d)
		w.watchdog.fullUntil = w.now.Add(d)
	case 12, 13:
		w.linkFault(l, d)
	}
}

func side(dir int) string { return [...]string{"the watchdog", "the conmgr"}[dir] }

// path is the network between one conmgr and the watchdog. Direction 0 leads to
// the watchdog, 1 to the conmgr.
type path struct {
	w      *world
	conn   *conn // the conmgr's latest
	loss   [2]float64
	dup    float64
	jitter time.Duration
	cuts   [2]int
	stuck  []*pipe
}

// delay draws the time that a packet is under way.
func (l *path) delay() time.Duration {
	d := l.w.between(l.w.timeout/1000, l.w.timeout/50)
	if l.jitter > 0 {
		d += l.w.between(0, l.jitter)
	}
	return d
}

func (l *path) cut(d time.Duration, dirs ...int) {
	for _, dir := range dirs {
		l.cuts[dir]++
		l.w.after(d, func() {
			l.cuts[dir]--
			l.resume()
		})
	}
}

func (l *path) heal() {
	l.loss, l.dup, l.jitter = [2]float64{}, 0, 0
}

// resume sends on what streams had waiting.
func (l *path) resume() {
	waiting := l.stuck
	l.stuck = nil
	for _, p := range waiting {
		p.resume()
	}
}
