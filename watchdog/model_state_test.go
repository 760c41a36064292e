// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Virtual time goes in steps of a quarter of the timeout: what happens within
// one happens at one instant, in an order that the adversary has a hand in.
const (
	modelStep     = time.Second
	modelTimeout  = 4 * modelStep
	modelInterval = 2 * modelStep
	modelBegin    = mono.Instant(1000 * modelStep)
)

var (
	modelHost = netip.MustParseAddr("192.0.2.1")
	modelID   = wire.ID{1}
)

// The two ends.
const (
	toMan = 0 // the conmgr
	toDog = 1 // the watchdog
)

// packetKind tells frames from what the kernels say.
type packetKind uint8

const (
	carriesFrame packetKind = iota
	opensStream             // SYN and its answer
	endsStream              // FIN or RST; ICMP on datagrams
)

// packet is under way.
type packet struct {
	kind    packetKind
	flow    uint64 // connection, or conmgr's port
	to      int
	f       *wire.Frame  // shared, never changed
	due     mono.Instant // held back until then
	decided bool         // the adversary had its say
}

// dog is one session of the watchdog.
type dog struct {
	m    *heartbeat.Machine
	id   uint64
	flow uint64 // 0: the transport is gone
}

// modelEnd is what both daemons have: whether they run.
type modelEnd struct {
	up          bool
	back        mono.Instant // restarts then, when it is not up
	pausedFrom  mono.Instant // its pass that did not happen; zero: runs
	pausedUntil mono.Instant
	pauseEnd    mono.Instant // of the last pause that had to be noticed
	inbox       []packet     // came while it was paused
}

// modelState is one state of the whole: both daemons, the network, and what the
// adversary may still do.
type modelState struct {
	p   *modelParams
	now mono.Instant
	// phase: 0 the adversary's turn, 1 and 2 the passes of the two ends, 3 time
	// goes on.
	phase int

	ends [2]modelEnd

	man         *heartbeat.Machine // nil while conmgr is down
	manFlow     uint64
	incarnation uint64

	dogs        []dog
	docket      *Docket
	records     []ArmedRecord
	lastFlow    uint64
	lastSession uint64
	streams     map[uint64]bool // connections that the watchdog's kernel has

	fresh    []packet // just sent
	held     []packet
	cutUntil [2]mono.Instant // by direction

	budget    int  // faults that are left
	disturbed bool // in this step a fault began or ended
	calm      int  // steps without any fault at work, up to calmMost

	failure string
	trace   *[]string // nil: nobody reads it
}

// calmMost is where counting quiet steps ends.
const calmMost = 2 * int(modelTimeout/modelStep)

func newModel(p *modelParams) *modelState {
	s := &modelState{p: p, now: modelBegin, docket: NewDocket(DefaultPolicy()), budget: p.budget, streams: map[uint64]bool{}}
	s.ends[toDog].up = true
	s.startMan()
	return s
}

func (s *modelState) clone() *modelState {
	c := *s
	if s.man != nil {
		c.man = copyMachine(s.man)
	}
	c.dogs = slices.Clone(s.dogs)
	for i := range c.dogs {
		c.dogs[i].m = copyMachine(c.dogs[i].m)
	}
	if s.docket != nil {
		c.docket = copyDocket(s.docket)
	}
	c.fresh, c.held = slices.Clone(s.fresh), slices.Clone(s.held)
	for i := range c.ends {
		c.ends[i].inbox = slices.Clone(s.ends[i].inbox)
	}
	c.streams = map[uint64]bool{}
	for f := range s.streams {
		c.streams[f] = true
	}
	return &c
}

func (s *modelState) say(format string, args ...any) {
	if s.trace != nil {
		*s.trace = append(*s.trace, fmt.Sprintf("%3d  ", s.now.Sub(modelBegin)/modelStep)+fmt.Sprintf(format, args...))
	}
}

func (s *modelState) fail(format string, args ...any) {
	if s.failure == "" {
		s.failure = fmt.Sprintf(format, args...)
		s.say("FAILED: %s", s.failure)
	}
}

func (s *modelState) paused(end int) bool { return !s.ends[end].pausedFrom.IsZero() }

// quiet reports whether no fault is at work.
func (s *modelState) quiet() bool {
	for i := range s.ends {
		if !s.ends[i].up || s.paused(i) || s.now.Before(s.cutUntil[i]) {
			return false
		}
	}
	return len(s.held) == 0 && !s.disturbed
}

// agreed reports whether both ends are armed in one and the same session, and
// the docket knows it.
func (s *modelState) agreed() bool {
	if s.man == nil || !heartbeat.Armed(s.man.State()) || s.docket == nil {
		return false
	}
	armed := 0
	for _, d := range s.dogs {
		if heartbeat.Armed(d.m.State()) {
			armed++
			if d.id != s.man.Session() || d.flow != s.manFlow {
				return false
			}
		}
	}
	r := s.docket.find(Client{Addr: modelHost, Conmgr: modelID})
	return armed == 1 && r != nil && r.state == relationArmed
}
