// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// linkFault lets the kernel of one end or of both hint that the link is lost: a
// true hint, or one that only looks so. Some are never taken back.
func (w *world) linkFault(l *path, d time.Duration) {
	client := w.clientOf(l)
	told := pick(w, []*host{w.watchdog}, []*host{client}, []*host{client, w.watchdog})
	grace := pick(w, 0, w.timeout/8, w.timeout/2, w.timeout, 10*w.timeout)
	cut := w.chance(0.7)
	w.say("fault: the link of %s is lost for %v, grace %v, cut %v", client.name, d, grace, cut)
	if cut {
		l.cut(d, 0, 1)
	}
	back := w.chance(0.8)
	for _, h := range told {
		h.hint(client.client, func(e *end, now mono.Instant) {
			e.noteHint(now, grace)
			e.step(func(out *Output) { e.m.LinkLost(now, grace, out) })
		})
		if back {
			w.after(d, func() {
				h.hint(client.client, func(e *end, now mono.Instant) {
					e.grace = 0
					e.step(func(out *Output) { e.m.LinkBack(now, out) })
				})
			})
		}
	}
}

func (w *world) clientOf(l *path) *host {
	for i, other := range w.links {
		if other == l {
			return w.clients[i]
		}
	}
	panic("no client has this link")
}

// hint posts what the kernel says of the link to or of one client.
func (h *host) hint(client int, tell func(e *end, now mono.Instant)) {
	h.post(func(now mono.Instant) {
		for _, e := range h.ends {
			if e.client == client {
				tell(e, now)
			}
		}
	})
}

// noteHint expects the verdict at the end of the grace, unless something is heard.
func (e *end) noteHint(now mono.Instant, grace time.Duration) {
	if e.held || !Armed(e.m.State()) {
		return
	}
	e.h.w.tally.hints++
	until := max(now.Add(min(grace, e.h.w.timeout)), e.pausedUntil())
	if e.grace == 0 || until < e.grace {
		e.grace = until
	}
}

// latest is the latest instant of a verdict.
func (e *end) latest() mono.Instant {
	if e.grace != 0 {
		return e.until.Min(e.grace)
	}
	return e.until
}

// checkHint holds the reason of a verdict of silence against the hints.
func (e *end) checkHint(c Change) {
	want := wire.ReasonTimeout
	if e.grace != 0 {
		want = wire.ReasonLinkDown
	}
	if c.Reason != want {
		e.h.w.fail("%s: the reason of a verdict is %v, expected %v", e, c.Reason, want)
	}
}
