// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// rotation is a change of keys during the run, by operators who may know how.
type rotation struct {
	ordered bool // as agent/key documents it: no session may be lost by it
	restart bool // conmgrs load their keys by a restart, else while running
	begin   time.Duration
	pace    time.Duration // between two steps
}

// planRotation draws whether and how keys change. A wrong order costs sessions,
// so it comes to its end with the other faults.
func (w *world) planRotation(phase time.Duration) {
	if !w.keyed || !w.chance(0.5) {
		return
	}
	r := &w.rotation
	r.ordered = phase == 0 || w.chance(0.6)
	r.restart = phase > 0 && w.chance(0.5)
	r.begin, r.pace = w.between(0, max(phase, 4*w.timeout)/4), w.between(0, max(phase, 4*w.timeout)/4)
	if r.ordered {
		w.plan(epoch.Add(r.begin), w.rotateInOrder)
		return
	}
	wrong := pick(w, w.clientsFirst, w.oldKeyAtOnce, w.otherSecret, w.wrongAddress)
	w.plan(epoch.Add(r.begin), wrong)
	w.plan(epoch.Add(phase), func() {
		w.setKeys(w.watchdog, "old+next")
		for _, h := range w.clients {
			w.setKeys(h, "next+old")
		}
	})
}

// setKeys replaces a host's key file and has the daemon load it.
func (w *world) setKeys(h *host, name string) {
	w.say("keys: %s has %s", h.name, name)
	h.file = simRings()[name]
	if h.side == 0 && w.rotation.restart {
		h.restart(wire.ByeRestart, w.between(0, w.timeout/2))
		return
	}
	h.loadKeys()
}

// rotateInOrder is agent/key's recipe.
func (w *world) rotateInOrder() {
	r := &w.rotation
	w.setKeys(w.watchdog, "old+next")
	w.afterLoaded(func() {
		for _, h := range w.clients {
			w.setKeys(h, "next+old")
		}
		if !r.restart && !w.faultless { // running sessions keep the old key until a restart, at leisure
			w.after(r.pace, func() {
				for _, h := range w.clients {
					h.restart(wire.ByeRestart, w.between(0, w.timeout/2))
				}
			})
		}
		w.afterLoaded(w.dropOld)
	})
}

// afterLoaded waits for every daemon to have loaded its file.
func (w *world) afterLoaded(next func()) {
	w.after(w.rotation.pace, func() {
		for _, h := range w.hosts() {
			if h.ring != h.file || !h.up {
				w.afterLoaded(next)
				return
			}
		}
		next()
	})
}

// dropOld takes the old key away once no session uses it: one whose connection is
// broken is a session until it has timed out.
func (w *world) dropOld() {
	old := simRings()["old"].First().ID()
	for _, h := range w.hosts() {
		for _, e := range h.ends {
			if e.key != nil && e.key.ID() == old && (e.conn != nil || e.m.State() != wire.StateDown) {
				w.after(w.timeout, w.dropOld)
				return
			}
		}
	}
	w.tally.rotated++
	w.setKeys(w.watchdog, "next")
}

// clientsFirst gives the conmgrs a key that the watchdog does not know yet.
func (w *world) clientsFirst() {
	for _, h := range w.clients {
		w.setKeys(h, "next")
	}
}

// oldKeyAtOnce takes the old key from the watchdog while it is in use.
func (w *world) oldKeyAtOnce() { w.setKeys(w.watchdog, "next") }

// otherSecret puts another secret under the id that is in use.
func (w *world) otherSecret() { w.setKeys(w.watchdog, "other") }

// wrongAddress binds the key to an address that no conmgr has.
func (w *world) wrongAddress() { w.setKeys(w.watchdog, "astray") }

// firstKeys is what all begin with.
func (w *world) firstKeys() *key.Ring {
	if !w.keyed {
		return nil
	}
	return simRings()["old"]
}
