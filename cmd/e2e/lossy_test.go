// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// lossyEnv says how long the rows of bad paths run; see make test-lossy.
const lossyEnv = "CM_TEST_LOSSY"

// badPathFor is how long a bad path is looked at. What must fail gets the time
// that the worst luck needs.
func (w *world) badPathFor() time.Duration {
	w.Helper()
	if w.impatient > 0 {
		return time.Minute
	}
	text := os.Getenv(lossyEnv)
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	w.must(err)
	return d
}

// 20 % of the packets of both directions are lost at random: nobody notices. Off
// has a timeout that leaves no time to ask for what was lost.
func TestLossy(t *testing.T) {
	prove(t, row{
		name: "lossy", udpOnly: true, with: fiveBeats,
		off: func(s *setup) { s.timeout = s.interval / 2 },
		run: func(w *world) { w.provePath(20, 20, w.badPathFor()) },
	})
}

// The same with 40 %. Off has no answers to probes: it shows what they are worth.
func TestVeryLossy(t *testing.T) {
	prove(t, row{
		name: "lossy, 40 %", udpOnly: true, v4Only: true, fastOnly: true, with: fiveBeats,
		off: func(s *setup) { s.unanswered = true },
		run: func(w *world) { w.provePath(40, 40, w.badPathFor()) },
	})
}

// The path is bad in one direction only, in turn.
func TestLossyOneWay(t *testing.T) {
	prove(t, row{
		name: "lossy, one way", udpOnly: true, v4Only: true, with: fiveBeats,
		off: func(s *setup) { s.unanswered = true },
		run: func(w *world) {
			w.provePath(60, 0, w.badPathFor()/2)
			w.provePath(0, 60, w.badPathFor()/2)
		},
	})
}

// provePath makes the path to and from the database host lose packets, in
// percent, and expects that nobody notices.
func (w *world) provePath(to, from float64, during time.Duration) {
	w.Helper()
	x := w.witnesses()
	w.dropAnswers()
	before := agenttest.MustDropped(w, w.db1)
	agenttest.MustFault(w, func(ctx context.Context) (agenttest.Effect, error) { return w.db1.Loss(ctx, to, from) })
	x.expectUnnoticed("a lossy path", during)
	agenttest.MustFault(w, w.db1.Heal) // TCP would need minutes to ask over a very bad one
	x.expectAlive("a lossy path")
	after := agenttest.MustDropped(w, w.db1)
	in, out := after.In-before.In, after.Out-before.Out
	if (in > 0) != (to > 0) || (out > 0) != (from > 0) {
		w.Fatalf("the path lost %d packets to and %d from the database host at %v %% and %v %%", in, out, to, from)
	}
	w.count("packets lost", in+out)
}

// Everything is lost again and again, each time for less than the timeout.
func TestLossBursts(t *testing.T) {
	prove(t, row{
		name: "loss bursts", udpOnly: true, v4Only: true, with: func(s *setup) { fiveBeats(s); calm(s) },
		off: func(s *setup) { s.worsePath = true },
		run: func(w *world) {
			start := time.Now()
			over := func() bool {
				return time.Since(start) > w.badPathFor()/2 && w.counted["bursts"] > 0 || time.Since(start) > w.patience()
			}
			for !over() {
				x := w.witnesses()
				for !over() && w.burst(x) {
					w.count("bursts", 1)
				}
			}
			if w.counted["bursts"] == 0 {
				w.Fatal("no burst was as short as it had to be")
			}
		},
	})
}

// burst loses everything for 60 % of the timeout. It returns false when that took
// too long to be called short: the injector is a program, and a busy machine lets
// it wait. What became of the sessions says nothing then, and the next burst is
// shorter.
func (w *world) burst(x *witnesses) (short bool) {
	w.Helper()
	length := w.timeout * 6 / 10
	if w.worsePath {
		length = w.timeout * 16 / 10
	}
	length >>= w.counted["bursts that took too long"]
	cut := agenttest.MustFault(w, w.db1.Cut)
	<-time.After(length)
	healed := agenttest.MustFault(w, w.db1.Heal)
	took := healed.After.Sub(cut.Before)
	if took > w.timeout*8/10 && !w.worsePath {
		w.count("bursts that took too long", 1)
		return false
	}
	w.measure("longest burst", max(w.measured["longest burst"], took))
	x.expectUnnoticed("after a burst of loss", w.timeout-length/2)
	x.expectAlive("a burst of loss")
	return true
}

// Frames of both directions arrive in another order, late, and twice. Off holds
// all of them back for more than the timeout.
func TestScrambled(t *testing.T) {
	prove(t, row{
		name: "scrambled", udpOnly: true, fastOnly: true, with: fiveBeats,
		off: func(s *setup) { s.worsePath = true },
		run: func(w *world) {
			o := agenttest.Scramble{Port: portHeartbeat, Late: 30, Twice: 30, Hold: w.timeout}
			if w.worsePath {
				o = agenttest.Scramble{Port: portHeartbeat, Late: 100, Hold: 4 * w.timeout}
			}
			x := w.witnesses()
			there, back := w.scramble(w.client, o), w.scramble(w.db1, o)
			x.expectUnnoticed("a scrambled path", w.badPathFor()/2)
			x.expectAlive("a scrambled path")
			for _, s := range []*agenttest.Scrambler{there, back} {
				held, copied := s.Counts()
				if held == 0 || copied == 0 {
					w.Fatalf("%d frames held back, %d delivered twice: expected both", held, copied)
				}
				w.count("frames held back", held)
				w.count("frames delivered twice", copied)
			}
		},
	})
}

// scramble scrambles what a host sends until the test ends.
func (w *world) scramble(h *agenttest.Host, o agenttest.Scramble) *agenttest.Scrambler {
	w.Helper()
	s, err := h.Scramble(w.Context(), o)
	w.must(err)
	w.Cleanup(func() { _ = s.Close(context.WithoutCancel(w.Context())) })
	return s
}
