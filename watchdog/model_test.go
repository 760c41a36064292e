// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var modelFull = flag.Bool("model.full", false, "explore the session protocol within wider bounds; takes minutes")

// TestModel explores what both ends of the heartbeat, the rule that a newer
// session of a conmgr replaces the older one, and the docket do together: with
// the real machines, in every order of events that an adversary within bounds can
// bring about. It may lose, delay, reorder and repeat each frame, cut the path
// in one direction or both, break a connection and tell either end or both, let
// either end stand still, kill and restart conmgr and the agent; each of these
// costs one of its faults, and what it leaves alone is delivered at once.
//
// States that differ only in what they count from are one state (see encoder), so
// that the search ends by itself and covers runs of any length. The driver is the
// model's own: see agent/peer and gate for the real ones. Keys and cookies are left
// to the simulation in agent/heartbeat.
//
// It fails when, in any state that can be reached,
//
//	(a) a warrant is written for a live host. A silent session ends only as (d)
//	    allows, so one new frame of the session per timeout is enough to live. What
//	    a wait or a restored record asks for is more, a new handshake; so there:
//	    conmgr runs, and for the whole wait nothing was lost, delayed, broken,
//	    paused or down;
//	(b) the ends do not agree on one armed session within calmBound steps once
//	    no fault is at work any more, or do not stay in agreement for ever;
//	(c) a session that was not armed by beats both ways leads to a warrant;
//	(d) a verdict of silence comes before the last valid frame and the last own
//	    pause are one timeout old, or a frame that proves nothing moves either.
func TestModel(t *testing.T) {
	for _, p := range modelBounds() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			x := explore(&p)
			t.Logf("%d states, %d transitions, %.1f s; agreement within %d calm steps, bound %d",
				len(x.seen)+len(x.settled), x.transitions, time.Since(begin).Seconds(), x.slowest, calmBound)
			if x.failure != "" {
				t.Fatalf("%s\nchoices %v\n%s", x.failure, x.path, strings.Join(x.replay(), "\n"))
			}
		})
	}
}

// modelBounds are the explorations: both transports, and either loop first.
func modelBounds() (list []modelParams) {
	for _, p := range []modelParams{
		{name: "udp, conmgr first", datagram: true, first: toMan},
		{name: "udp, agent first", datagram: true, first: toDog},
		{name: "tcp, conmgr first", first: toMan},
		{name: "tcp, agent first", first: toDog},
	} {
		p.budget = 2
		p.holds, p.pauses, p.cuts, p.downs = []int{1}, []int{2}, []int{5}, []int{0, 2}
		if *modelFull {
			p.budget = 3
			p.holds, p.pauses, p.cuts, p.downs = []int{1, 3}, []int{1, 2, 5}, []int{2, 5}, []int{0, 2, 5}
		}
		list = append(list, p)
	}
	return list
}
