// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// The shortest and longest timers that a configuration allows, and odd ones.
var extremes = []struct{ interval, timeout, connect time.Duration }{
	{10 * ms, ms, 10 * ms}, {10 * ms, 10 * ms, ms}, {10 * ms, 10 * time.Minute, time.Hour},
	{10 * time.Minute, 10 * time.Minute, time.Second}, {10 * time.Minute, 10 * ms, time.Second},
	{333 * time.Microsecond, 7 * ms, 3 * ms}, {time.Second, 5 * time.Second, 10 * time.Second}, {1, 1, 1},
}

// A machine never asks to be called at an instant that has passed, whatever
// happened to it before: its driver would spin.
func TestNextIsNeverInThePast(t *testing.T) {
	for _, x := range extremes {
		for seed := range uint64(100) {
			rng := rand.New(rand.NewPCG(seed, uint64(x.interval)))
			edit := func(c *Config) {
				c.Interval, c.Timeout = x.interval, x.timeout
				c.ConnectInterval, c.ConnectTimeout = x.connect, x.connect
				c.Datagram = seed%2 == 0
			}
			r := active(t, edit)
			if seed%3 == 0 {
				r = passive(t, edit)
			}
			all := events()
			for range 200 {
				if rng.IntN(3) == 0 {
					e := all[rng.IntN(len(all))]
					if !meaningless(situation{role: r.m.cfg.Role}, e) && (e.covers != "Stop" || rng.IntN(20) == 0) {
						e.fire(r)
					}
				} else if next := r.m.Next(); next != mono.Never {
					r.now = max(r.now, next.Add(time.Duration(rng.Int64N(int64(x.timeout)+1))*time.Duration(rng.IntN(2))))
				}
				r.tick()
				if r.m.Next() <= r.now {
					t.Fatalf("%v x %v, seed %d: %v at %v, next %v before", x.interval, x.timeout, seed, r.m.State(), r.now, r.now.Sub(r.m.Next()))
				}
				if Armed(r.m.State()) && r.m.Next() > r.m.Deadline() {
					t.Fatalf("%v x %v, seed %d: sleeps past the deadline", x.interval, x.timeout, seed)
				}
			}
		}
	}
}

// Tick does something whenever it was asked for, and nothing before.
func TestTickAtNextMakesProgress(t *testing.T) {
	transitions(t, func(s situation, e event, r *rig, _ Machine) {
		for range 30 {
			next := r.m.Next()
			if next == mono.Never {
				return
			}
			if next > r.now+1 {
				before := snapshot(r.m)
				r.at(next - 1)
				if text, any := outcome(r, before); any {
					t.Fatalf("%s, %s: a nanosecond early: %s", s.name, e.name, text)
				}
			}
			r.at(max(r.now, next))
			if r.out.Frames == nil && !r.out.Dial && len(r.out.Changes) == 0 && r.out.Close == CloseNone && r.m.Next() <= next {
				t.Fatalf("%s, %s: Tick at Next did nothing", s.name, e.name)
			}
		}
	})
}

// 20 % random loss each way for ten minutes costs nobody: the probes see to it.
func TestLossyPathGivesNoVerdict(t *testing.T) {
	for _, x := range []struct{ interval, timeout time.Duration }{{100 * ms, 500 * ms}, {time.Second, 5 * time.Second}} {
		for seed := range uint64(10) {
			w := newWorld(seed+1, false)
			w.interval, w.timeout = x.interval, x.timeout
			w.connectInterval, w.connectTimeout = x.timeout, x.timeout
			w.datagram, w.agenda, w.clients, w.links = true, nil, nil, nil
			end := epoch.Add(10 * time.Minute)
			w.healthyAt, w.settledAt, w.faultless = end, end, true
			w.watchdog = &host{w: w, name: "watchdog", side: 1}
			w.watchdog.start()
			w.links = []*path{{w: w, loss: [2]float64{0.2, 0.2}}}
			w.clients = []*host{{w: w, name: "conmgr0"}}
			w.clients[0].start()
			w.runUntil(end)
			if w.failure != "" {
				t.Errorf("%v x %v, seed %d: %s", x.interval, x.timeout, seed, w.failure)
			}
			if m := w.clients[0].ends[0].m; !Armed(m.State()) || m.Stats().Lost < 100 {
				t.Errorf("%v x %v, seed %d: %v, %d lost", x.interval, x.timeout, seed, m.State(), m.Stats().Lost)
			}
		}
	}
}

// The sequence number on the wire never repeats and never skips.
func TestSequenceIsGapless(t *testing.T) {
	bothRoles(t, func(t *testing.T, r *rig) {
		r.run(r.m.Deadline())
		r.wantState(wire.StateDown)
		for i, f := range r.frames {
			if f.Seq != uint64(i+1) {
				t.Fatalf("frame %d has number %d", i+1, f.Seq)
			}
		}
	})
}
