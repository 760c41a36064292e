// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// witness knows, by the plainest means, what a docket must never do.
type witness struct {
	*story
	policy  PolicyConfig
	rng     *rand.Rand
	lastID  uint64
	live    map[uint64]Client  // armed sessions
	ended   map[netip.Addr]int // how often a session of the address ended in a way that may kill
	closed  map[uint64]bool    // warrants that are over
	open    map[uint64]Warrant // warrants that run
	maxSeen uint64
	paused  mono.Instant
	log     []string
}

var randomReasons = []wire.Reason{
	wire.ReasonTimeout, wire.ReasonLinkDown, wire.ReasonDisconnect, wire.ReasonPeerDown, wire.ReasonStop,
	wire.ReasonRestart, wire.ReasonShutdown, wire.ReasonLeave, wire.ReasonReplaced,
}

// TestDocketRandom lets random stories happen and checks after each event that
// nobody was accused without cause. A failure names its seed.
func TestDocketRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3000) {
		w := &witness{
			rng: rand.New(rand.NewPCG(seed, 1)), live: map[uint64]Client{}, ended: map[netip.Addr]int{},
			closed: map[uint64]bool{}, open: map[uint64]Warrant{},
		}
		w.policy = PolicyConfig{
			OnTimeout: Action(w.rng.IntN(3)), OnHang: Action(w.rng.IntN(3)), OnDisconnect: Action(w.rng.IntN(3)),
			OnShutdown: Action(w.rng.IntN(3)), SharedAddress: SharedAddress(w.rng.IntN(2)),
		}
		w.story = newStory(t, w.policy)
		for range 60 {
			w.event()
			if err := w.check(); err != nil {
				for _, line := range w.log {
					t.Log(line)
				}
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if *unended != (ending{}) {
			t.Fatalf("seed %d: an ending was written to an armed relation: %+v", seed, *unended)
		}
	}
}

func (w *witness) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%v ", time.Duration(w.now))+fmt.Sprintf(format, args...))
}

func (w *witness) client() Client {
	addr := []netip.Addr{hostA, hostB, netip.MustParseAddr("192.0.2.99")}[w.rng.IntN(3)]
	return Client{Addr: addr, Conmgr: wire.ID{byte(w.rng.IntN(3))}}
}

// protectedHost is armed with protected set, always.
var protectedHost = netip.MustParseAddr("192.0.2.99")

func (w *witness) event() {
	switch w.rng.IntN(8) {
	case 0, 1:
		w.arm()
	case 2, 3, 4:
		w.end()
	case 5:
		w.pass(time.Duration(w.rng.Int64N(int64(2 * testTimeout))))
	case 6:
		w.finishOne()
	case 7:
		w.rare()
	}
}

func (w *witness) arm() {
	c := w.client()
	w.lastID++
	w.note("armed %d %v/%d", w.lastID, c.Addr, c.Conmgr[0])
	w.d.Armed(w.now, w.lastID, c, testTimeout, testInterval, c.Addr == protectedHost, &w.out)
	for id, other := range w.live {
		if other == c {
			delete(w.live, id)
		}
	}
	w.live[w.lastID] = c
	for id, warrant := range w.open {
		if warrant.Addr == c.Addr && c.Addr != protectedHost {
			w.closed[id] = true
		}
	}
}

func (w *witness) end() {
	// Sessions that are not armed end as well.
	id := uint64(1 + w.rng.IntN(int(w.lastID)+2))
	ch := w.change(randomReasons[w.rng.IntN(len(randomReasons))])
	ch.OwnPause = w.rng.IntN(4) == 0
	w.note("ended %d %v own pause %v", id, ch.Reason, ch.OwnPause)
	if c, ok := w.live[id]; ok {
		delete(w.live, id)
		if w.policy.verdictOf(ch.Reason, ch.OwnPause) != Ignore {
			w.ended[c.Addr]++
		}
	}
	before := len(w.out.Execute)
	w.endedBy(id, ch)
	for _, warrant := range w.out.Execute[before:] {
		// A spared one may be judged now; the ended one itself never with an
		// own pause or after a leave.
		if warrant.Session == id && (ch.OwnPause || ch.Reason == wire.ReasonLeave) {
			w.t.Fatalf("session %d killed at once: %+v", id, ch)
		}
	}
}

func (w *witness) finishOne() {
	for id := range w.open {
		if w.rng.IntN(2) == 0 {
			w.note("done %d", id)
			w.d.Done(w.now, id, &w.out)
		} else {
			w.note("alive %d", id)
			w.d.Alive(w.now, id, &w.out)
		}
		delete(w.open, id)
		return
	}
}

func (w *witness) rare() {
	switch w.rng.IntN(3) {
	case 0:
		w.note("freeze")
		w.freeze(time.Duration(w.rng.Int64N(int64(3 * testTimeout))))
	case 1:
		until := w.now.Add(time.Duration(w.rng.Int64N(int64(testTimeout))))
		w.note("pause until %v", time.Duration(until))
		w.d.Pause(w.now, until, &w.out)
		w.paused = until
		w.open = map[uint64]Warrant{}
	case 2:
		c := w.client()
		if c.Addr == protectedHost {
			return
		}
		w.note("restore %v/%d", c.Addr, c.Conmgr[0])
		w.d.Restore(w.now, []ArmedRecord{{Client: c, Timeout: testTimeout}}, &w.out)
		w.ended[c.Addr]++
	}
}

// check judges the orders of one event.
func (w *witness) check() error {
	defer w.out.Reset()
	for _, id := range w.out.Close {
		delete(w.open, id)
	}
	for _, warrant := range w.out.Execute {
		w.note("warrant %+v", warrant)
		switch {
		case warrant.ID <= w.maxSeen:
			return fmt.Errorf("warrant %d ordered twice", warrant.ID)
		case warrant.Addr == protectedHost:
			return fmt.Errorf("protected host accused: %+v", warrant)
		case w.ended[warrant.Addr] == 0:
			return fmt.Errorf("accused without an armed session that ended: %+v", warrant)
		case warrant.Issued.Before(w.paused):
			return fmt.Errorf("accused while paused: %+v", warrant)
		case warrant.Verdict.After(warrant.Issued):
			return fmt.Errorf("verdict after its issue: %+v", warrant)
		}
		for _, c := range w.live {
			if c.Addr == warrant.Addr && w.policy.SharedAddress == Spare {
				return fmt.Errorf("accused while %v is armed: %+v", c, warrant)
			}
			if c.Addr == warrant.Addr && c.Conmgr == warrant.Conmgr {
				return fmt.Errorf("accused although it is armed: %+v", warrant)
			}
		}
		w.open[warrant.ID] = warrant
		w.maxSeen = warrant.ID
	}
	for id := range w.open {
		if w.closed[id] {
			return fmt.Errorf("warrant %d not closed by a comeback", id)
		}
	}
	return w.checkWaits()
}

// checkWaits: whatever waits is woken.
func (w *witness) checkWaits() error {
	for _, v := range w.d.View() {
		if v.State == "waiting" && w.d.Next() == mono.Never {
			return fmt.Errorf("waits for ever: %+v", v)
		}
		if v.Addr == protectedHost {
			return fmt.Errorf("protected host on the docket: %+v", v)
		}
	}
	return nil
}
