// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// busyLoop keeps a backend from ever looking at its socket.
const busyLoop = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"

// The database host no longer hears the client, which hears it: the watchdog's
// verdict ends the sessions, and conmgr learns of it.
func TestOneWayDeafServer(t *testing.T) {
	prove(t, row{
		name: "one-way deaf server",
		off:  func(s *setup) { s.timeout = 9 * time.Minute },
		run: func(w *world) {
			busy, idle := w.open(portPrimary), w.open(portPrimary)
			busy.begin(busyLoop)
			idle.idle()
			watcher := w.target("primary")
			w.expect("two backends", func() bool { return w.backends(w.primary, w.client) == 2 })
			agenttest.MustFault(w, w.db1.CutIn)
			w.expectVerdict("busy application", w.lastFrame(w.db1, w.client), busy.ended("busy").at, w.timeout)
			w.expectVerdict("idle application", w.lastFrame(w.db1, w.client), idle.ended("idle").at, w.timeout)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			w.expectVerdict("backends gone", w.lastFrame(w.db1, w.client), now(), w.timeout)
			w.expectVerdict("console", w.lastFrame(w.db1, w.client), watcher.ended("console").at, w.timeout)
		},
	})
}

// The client no longer hears the database host, which hears it: conmgr's verdict
// ends the sessions, and the watchdog, which is told, waits a while for the same
// conmgr (on_disconnect, never less than one timeout) and ends what is left.
func TestOneWayDeafClient(t *testing.T) {
	prove(t, row{
		name: "one-way deaf client",
		off:  func(s *setup) { s.timeout = 9 * time.Minute },
		run: func(w *world) {
			busy, idle := w.open(portPrimary), w.open(portPrimary)
			busy.begin(busyLoop)
			idle.idle()
			stranger := w.openDirect(w.client, w.primary)
			stranger.begin(busyLoop)
			w.expect("three backends", func() bool { return w.backends(w.primary, w.client) == 3 })
			agenttest.MustFault(w, w.db1.CutOut)
			w.expectVerdict("busy application", w.lastFrame(w.client, w.db1), busy.ended("busy").at, w.timeout)
			w.expectVerdict("idle application", w.lastFrame(w.client, w.db1), idle.ended("idle").at, w.timeout)
			told := w.lastFrame(w.db1, w.client)
			w.expect("no backend of the client", func() bool { return w.backends(w.primary, w.client) == 0 })
			// The host lives: no backend that does not end by itself goes before
			// the wait is over.
			w.expectVerdict("busy backends gone", told, now(), w.timeout)
		},
	})
}
