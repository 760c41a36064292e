// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"flag"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	simSeeds = flag.Uint64("sim.seeds", 2000, "number of random simulations")
	simSeed  = flag.Uint64("sim.seed", 0, "run only this seed and print its trace")
)

// traceLines is how much of a failing run is printed.
const traceLines = 300

// TestSim runs both ends over a bad network: see world.
func TestSim(t *testing.T) {
	if *simSeed != 0 {
		reportSeed(t, *simSeed)
		return
	}
	seeds := *simSeeds
	if testing.Short() {
		seeds = min(seeds, 300)
	}
	var (
		next, failed atomic.Uint64
		workers      sync.WaitGroup
		mu           sync.Mutex // guards the following
		sum          tally
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := next.Add(1); seed <= seeds && failed.Load() == 0; seed = next.Add(1) {
				w := newWorld(seed, false)
				w.run()
				mu.Lock()
				sum.add(&w.tally)
				mu.Unlock()
				if w.failure != "" {
					failed.CompareAndSwap(0, seed)
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d seeds: %v", seeds, &sum)
	if seed := failed.Load(); seed != 0 {
		reportSeed(t, seed)
	}
	if seeds < 2000 || failed.Load() != 0 {
		return
	}
	sum.check(t)
}

// reportSeed runs one seed again, with its trace.
func reportSeed(t *testing.T, seed uint64) {
	w := newWorld(seed, true)
	w.run()
	lines := w.trace
	if len(lines) > traceLines && *simSeed == 0 {
		lines = lines[len(lines)-traceLines:]
	}
	t.Logf("trace of seed %d:\n%s", seed, strings.Join(lines, "\n"))
	if w.failure != "" {
		t.Fatalf("seed %d: %s\nreplay: go test ./agent/heartbeat -run '^TestSim$' -v -sim.seed=%d", seed, w.failure, seed)
	}
}
