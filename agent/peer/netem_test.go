// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// What netem does to the packets that a host sends: one in ten is lost, and they come
// between 50 and 450 ms later, so that beats every 100 ms overtake each other.
const (
	netem        = "delay 250ms 200ms loss 10%"
	badInterval  = 100 * time.Millisecond
	badTimeout   = 8 * time.Second // for TCP, which waits longer with each loss of the same segment
	badPathLimit = 3 * time.Minute // for an emulated machine in trouble
)

// The kernel of this machine has no netem, those of the virtual machines do.
func TestInVirtualMachine(t *testing.T) {
	agenttest.RunInGuests(t, agenttest.Guest{
		All: "^TestBadPath$", Modules: []string{"sch_netem"}, Programs: []string{"tc"},
	})
}

// relation is both ends of a session between two hosts, each with a loop of its own.
type relation struct {
	name       string
	dog, man   recorder
	passive    *Listener
	dogs, mans *Loop
	active     *Session
	received   [2]uint64 // frames, by the passive and the active end
	lost       [2]uint64 // gaps, at the last look
	overtaken  [2]int    // how often a gap was filled since the look before
}

// Loss, delay and reordering lead to no verdict, and silence does at both ends, over
// both transports.
func TestBadPath(t *testing.T) {
	if !vm.Inside() {
		t.Skip("a machine's own kernel may have no netem: see TestInVirtualMachine")
	}
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	mans, dogs := startLoopOn(t, client), startLoopOn(t, db)
	udp, tcp := relate(t, "udp", dogs, mans, db), relate(t, "tcp", dogs, mans, db)
	for _, h := range []*agenttest.Host{client, db} {
		mustTC(t, h, "qdisc add dev eth0 root netem "+netem)
	}
	enough := func() bool {
		udp.look()
		tcp.look()
		return min(udp.received[0], udp.received[1], tcp.received[0], tcp.received[1]) > 100 &&
			min(udp.lost[0], udp.lost[1]) > 5 && min(udp.overtaken[0], udp.overtaken[1]) > 5
	}
	agenttest.Eventually(t, badPathLimit, "a hundred frames each, some lost, some overtaken", enough)
	for _, r := range []*relation{udp, tcp} {
		t.Logf("%s: received %v, lost %v, overtaken %v", r.name, r.received, r.lost, r.overtaken)
		if n := r.dog.count(wire.StateDown) + r.man.count(wire.StateDown); n != 0 {
			t.Errorf("%s: %d verdicts on a bad path, want none", r.name, n)
		}
	}
	for _, h := range []*agenttest.Host{client, db} {
		if dropped := netemDropped(t, h); dropped == 0 {
			t.Errorf("%s: netem has dropped nothing", h.Name)
		}
	}
	agenttest.MustFault(t, client.Cut)
	for _, r := range []*relation{udp, tcp} {
		r.mustEndInSilence(t)
	}
}

// startLoopOn runs a loop inside a host until the test ends.
func startLoopOn(t *testing.T, h *agenttest.Host) *Loop {
	t.Helper()
	made, done := make(chan *Loop, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- h.Do(func() error {
			l, err := NewLoop(nil)
			made <- l
			if err != nil {
				return err
			}
			return l.Run(ctx)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	l := <-made
	if l == nil {
		t.Fatal("no loop")
	}
	return l
}

// relate arms a session with a key over a path that is still good.
func relate(t *testing.T, transport string, dogs, mans *Loop, db *agenttest.Host) *relation {
	t.Helper()
	ring := mustRing(t, ringOld)
	r := &relation{name: transport, dogs: dogs, mans: mans}
	ln, addr := serveKeyed(t, dogs, &r.dog, ring, db.Addr4.String())
	cfg := activeConfig(transport[0])
	cfg.Interval, cfg.Timeout, cfg.Datagram = badInterval, badTimeout, transport == "udp"
	r.passive = ln
	r.active = on(mans, func() *Session {
		return mans.Dial(DialConfig{Heartbeat: cfg, Key: func() *key.Key { return ring.First() }}, addr, &r.man)
	})
	eventually(t, transport+": both ends armed", func() bool {
		_, a := r.man.saw(wire.StateUp, wire.ReasonArmed)
		_, b := r.dog.saw(wire.StateUp, wire.ReasonArmed)
		return a && b
	})
	return r
}

// look reads the counters of both ends. A gap that is filled later was no loss.
func (r *relation) look() {
	type counts struct{ received, lost uint64 }
	read := func(s *Session) counts {
		stats := s.Machine().Stats()
		return counts{stats.Received, stats.Lost}
	}
	ends := [2]counts{
		on(r.dogs, func() (c counts) {
			for s := range r.passive.Sessions() {
				c = read(s)
			}
			return c
		}),
		on(r.mans, func() counts { return read(r.active) }),
	}
	for i, now := range ends {
		if now.lost < r.lost[i] {
			r.overtaken[i]++
		}
		r.received[i], r.lost[i] = now.received, now.lost
	}
}

// mustEndInSilence wants a verdict at each end after the timeout, not before.
func (r *relation) mustEndInSilence(t *testing.T) {
	t.Helper()
	for end, told := range map[string]*recorder{"watchdog": &r.dog, "conmgr": &r.man} {
		what := r.name + ": the verdict of the " + end
		agenttest.Eventually(t, badPathLimit, what, func() bool {
			_, ok := told.saw(wire.StateDown, wire.ReasonTimeout)
			return ok
		})
		if c, _ := told.saw(wire.StateDown, wire.ReasonTimeout); c.Silence < badTimeout {
			t.Errorf("%s: after %v, want at least %v", what, c.Silence, badTimeout)
		}
	}
}

func mustTC(t *testing.T, h *agenttest.Host, args string) string {
	t.Helper()
	out, err := h.Command(t.Context(), "tc", strings.Fields(args)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// netemDropped asks netem itself.
func netemDropped(t *testing.T, h *agenttest.Host) (dropped int) {
	t.Helper()
	var qdiscs []struct {
		Kind  string
		Drops int
	}
	text := mustTC(t, h, "-s -j qdisc show dev eth0")
	if err := json.Unmarshal([]byte(text), &qdiscs); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for _, q := range qdiscs {
		if q.Kind == "netem" {
			dropped += q.Drops
		}
	}
	return dropped
}
