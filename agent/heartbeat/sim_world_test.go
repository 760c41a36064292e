// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// world is one simulated run: some conmgrs, one watchdog, a bad network between
// them, and virtual time. Everything follows from the seed.
type world struct {
	rng    *rand.Rand
	now    mono.Instant
	agenda agenda
	count  uint64 // of events ever planned: breaks ties

	interval, timeout               time.Duration
	connectInterval, connectTimeout time.Duration
	datagram, keyed                 bool // without a key there is no UDP

	clients  []*host
	watchdog *host
	links    []*path // one per client
	sessions uint64  // last session id given
	ports    uint16  // last port of a conmgr
	heardBy  map[uint64]*[2]bool
	attacker attacker
	rotation rotation
	inst     wire.Instance

	healthyAt mono.Instant // all faults are over
	settledAt mono.Instant // and their after-effects
	faultless bool         // there never was a fault
	tally     tally

	tracing bool
	trace   []string
	failure string
}

type planned struct {
	at    mono.Instant
	order uint64
	do    func()
}

// agenda is the heap of planned events, in order of time and planning.
type agenda []planned

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(planned)) }
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}

func (w *world) plan(at mono.Instant, do func()) {
	w.count++
	heap.Push(&w.agenda, planned{max(at, w.now), w.count, do})
}

func (w *world) after(d time.Duration, do func()) { w.plan(w.now.Add(d), do) }

// say adds a line to the trace. It formats nothing unless somebody reads it.
func (w *world) say(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%10.3f ms  ", float64(w.now.Sub(epoch))/float64(ms))+fmt.Sprintf(format, args...))
	}
}

// fail notes the first broken invariant and ends the run.
func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.say("FAILED: %s", w.failure)
	}
}

// between returns a random duration.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)+1))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func pick[T any](w *world, of ...T) T { return of[w.rng.IntN(len(of))] }

// newWorld draws a world from the seed.
func newWorld(seed uint64, tracing bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0x636f6e6d6772)), now: epoch, tracing: tracing,
		heardBy: map[uint64]*[2]bool{},
		inst:    wire.Instance{Attribute: wire.AttributePrimary, Generation: 1},
	}
	w.interval = pick(w, 10*ms, 20*ms, 50*ms, 100*ms, 200*ms, time.Second)
	w.timeout = w.interval / 2 * pick[time.Duration](w, 1, 2, 3, 4, 4, 6, 6, 6, 10, 10, 10, 20)
	w.connectInterval = w.between(w.timeout/5, w.timeout*3/2)
	w.connectTimeout = w.between(w.timeout/2, w.timeout*3/2)
	w.datagram = w.chance(0.5)
	w.keyed = w.datagram || w.chance(0.5)
	clients := 1
	if w.chance(0.15) {
		clients = 3 + w.rng.IntN(3)
	}
	w.say("seed %d: %d conmgrs, %v x %v, connect %v/%v, datagram %v, keys %v",
		seed, clients, w.interval, w.timeout, w.connectInterval, w.connectTimeout, w.datagram, w.keyed)
	w.watchdog = &host{w: w, name: "watchdog", side: 1, file: w.firstKeys()}
	w.watchdog.start()
	for i := range clients {
		w.links = append(w.links, &path{w: w})
		h := &host{w: w, name: fmt.Sprintf("conmgr%d", i), client: i, file: w.firstKeys()}
		w.clients = append(w.clients, h)
		w.after(w.between(0, w.interval), h.start)
	}
	w.planFaults()
	w.planInstance()
	w.planAttacks()
	return w
}

func (w *world) hosts() []*host { return append([]*host{w.watchdog}, w.clients...) }

// nonce draws a nonce; by tells whose it is.
func (w *world) nonce(by byte) wire.ID {
	return wire.ID{byte(w.rng.Uint32()), byte(w.rng.Uint32()), byte(w.rng.Uint32()), by}
}

// run lives through the whole agenda up to the end and checks the last word.
func (w *world) run() {
	w.runUntil(w.settledAt.Add(3 * w.timeout))
	if w.failure == "" {
		w.checkAgreement()
	}
}

func (w *world) runUntil(end mono.Instant) {
	for w.failure == "" && len(w.agenda) > 0 && !w.agenda[0].at.After(end) {
		next := heap.Pop(&w.agenda).(planned)
		w.now = next.at
		next.do()
		if w.count > 2_000_000 {
			w.fail("does not come to rest")
		}
	}
}

// planInstance changes the instance now and then; the watchdog pushes it.
func (w *world) planInstance() {
	for range w.rng.IntN(4) {
		w.plan(epoch.Add(w.between(0, w.settledAt.Sub(epoch))), func() {
			w.inst.Generation++
			w.inst.Attribute = pick(w, wire.AttributePrimary, wire.AttributeStandby)
			w.watchdog.post(func(now mono.Instant) {
				for _, e := range w.watchdog.ends {
					e.step(func(out *Output) { e.m.Push(now, out) })
				}
			})
		})
	}
}
