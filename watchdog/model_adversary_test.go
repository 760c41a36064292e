// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// modelParams are one set of bounds.
type modelParams struct {
	name     string
	datagram bool
	first    int // which end's loop comes first in each step
	budget   int // faults
	// How long faults last, in steps.
	holds, pauses, cuts, downs []int

	man, dog heartbeat.Config
	nonce    wire.ID // of the attempt that begins
}

// prepare makes the machines' configurations, which all states share.
func (p *modelParams) prepare() {
	p.man = heartbeat.Config{
		Role: heartbeat.Active, Interval: modelInterval, Timeout: modelTimeout,
		ConnectInterval: modelStep, ConnectTimeout: 2 * modelStep, Datagram: p.datagram,
		Self: modelID, Nonce: func() wire.ID { return p.nonce },
	}
	p.dog = heartbeat.Config{
		Role: heartbeat.Passive, Interval: modelInterval, Timeout: modelTimeout,
		ConnectTimeout: 2 * modelTimeout, Datagram: p.datagram, Self: wire.ID{2},
	}
}

// fault is one thing that the adversary may do.
type fault struct {
	name string
	do   func(*modelState)
}

// faults lists what the adversary may do now, nothing first.
func (s *modelState) faults() []fault {
	list := []fault{{"nothing", func(*modelState) {}}}
	if s.budget == 0 {
		return list
	}
	if len(s.fresh) > 0 {
		return append(list, s.packetFaults()...)
	}
	for end := range s.ends {
		list = append(list, s.pauseFaults(end)...)
	}
	list = append(list, s.pathFaults()...)
	return append(list, s.restartFaults()...)
}

// packetFaults are about the next packet.
func (s *modelState) packetFaults() (list []fault) {
	p := s.fresh[0]
	add := func(name string, do func(*modelState)) {
		list = append(list, fault{fmt.Sprintf("%s %v", name, p), do})
	}
	if s.p.datagram {
		add("lose", func(s *modelState) { s.fresh = s.fresh[1:] })
	}
	for _, k := range s.p.holds {
		due := s.now.Add(time.Duration(k) * modelStep)
		add(fmt.Sprintf("hold for %d", k), func(s *modelState) { s.hold(due) })
		if s.p.datagram && p.kind == carriesFrame {
			add(fmt.Sprintf("again after %d", k), func(s *modelState) {
				again := s.fresh[0]
				again.due = due
				s.held = append(s.held, again)
			})
		}
	}
	return list
}

// hold takes the next packet off the wire until due, in a stream with all that
// follows.
func (s *modelState) hold(due mono.Instant) {
	p := s.fresh[0]
	rest := s.fresh[1:]
	s.fresh = nil
	p.due = due
	s.held = append(s.held, p)
	for _, q := range rest {
		if !s.p.datagram && q.flow == p.flow && q.to == p.to {
			q.due = due
			s.held = append(s.held, q)
			continue
		}
		s.fresh = append(s.fresh, q)
	}
}

func (s *modelState) pauseFaults(end int) (list []fault) {
	if !s.ends[end].up || s.paused(end) {
		return nil
	}
	for _, k := range s.p.pauses {
		list = append(list, fault{fmt.Sprintf("%s pauses for %d", endName(end), k), func(s *modelState) {
			s.ends[end].pausedFrom = s.now
			s.ends[end].pausedUntil = s.now.Add(time.Duration(k) * modelStep)
		}})
	}
	return list
}

var someEnds = [][]int{{toMan}, {toDog}, {toMan, toDog}}

func endNames(ends []int) string {
	if len(ends) == 2 {
		return "both"
	}
	return endName(ends[0])
}

// pathFaults cut the path, in one direction or both, and break connections.
func (s *modelState) pathFaults() (list []fault) {
	for _, k := range s.p.cuts {
		until := s.now.Add(time.Duration(k) * modelStep)
		for _, dirs := range someEnds {
			list = append(list, fault{fmt.Sprintf("cut for %d towards %s", k, endNames(dirs)), func(s *modelState) {
				for _, to := range dirs {
					s.cutUntil[to] = max(s.cutUntil[to], until)
				}
			}})
		}
	}
	if flow := s.manFlow; flow != 0 && !s.p.datagram {
		for _, told := range someEnds {
			list = append(list, fault{fmt.Sprintf("break the connection, %s told", endNames(told)), func(s *modelState) {
				for _, to := range told {
					s.fresh = append(s.fresh, packet{kind: endsStream, flow: flow, to: to, decided: true})
				}
			}})
		}
	}
	return list
}

func (s *modelState) restartFaults() (list []fault) {
	for _, k := range s.p.downs {
		back := s.now.Add(time.Duration(k) * modelStep)
		if s.ends[toMan].up && !s.paused(toMan) {
			list = append(list,
				fault{fmt.Sprintf("conmgr is killed and back after %d", k), func(s *modelState) { s.killMan(back) }},
				fault{fmt.Sprintf("conmgr restarts and is back after %d", k), func(s *modelState) {
					s.stepMan(func(out *heartbeat.Output) { s.man.Stop(s.now, wire.ByeRestart, out) })
					s.killMan(back)
				}})
		}
		if s.ends[toDog].up && !s.paused(toDog) {
			list = append(list, fault{fmt.Sprintf("the agent is killed and back after %d", k), func(s *modelState) { s.killDog(back) }})
		}
	}
	return list
}

func (s *modelState) killMan(back mono.Instant) {
	if s.manFlow != 0 {
		s.closeFlow(s.manFlow, toDog)
	}
	s.man, s.manFlow = nil, 0
	s.ends[toMan].up, s.ends[toMan].back, s.ends[toMan].inbox = false, back, nil
}

func (s *modelState) killDog(back mono.Instant) {
	for flow := range s.streams {
		s.closeFlow(flow, toMan)
	}
	clear(s.streams)
	s.dogs, s.docket = nil, nil
	s.ends[toDog].up, s.ends[toDog].back, s.ends[toDog].inbox = false, back, nil
}

// forced reports whether the adversary has nothing to choose now.
func (s *modelState) forced() bool {
	if len(s.fresh) > 0 {
		return s.budget == 0 || s.fresh[0].decided
	}
	return s.phase != 0
}

// choose lets the adversary do its choice and goes on behind it.
func (s *modelState) choose(i int, f fault) {
	frames := len(s.fresh)
	if i > 0 {
		s.say("- %s", f.name)
		s.budget--
		s.disturbed = true
	}
	if frames == 0 {
		f.do(s)
		s.phase = 1
		s.beginStep()
		return
	}
	if f.do(s); len(s.fresh) == frames && s.failure == "" {
		s.fresh[0].decided = true
	}
}

// beginStep starts what is down and is due, and releases what was held.
func (s *modelState) beginStep() {
	if !s.ends[toMan].up && !s.now.Before(s.ends[toMan].back) {
		s.startMan()
	}
	if !s.ends[toDog].up && !s.now.Before(s.ends[toDog].back) {
		s.startDog()
	}
	s.release()
}

// proceed does the next thing that is not the adversary's choice.
func (s *modelState) proceed() {
	switch {
	case len(s.fresh) > 0:
		s.deliver()
	case s.phase == 1:
		s.phase = 2
		s.pass(s.p.first)
	case s.phase == 2:
		s.phase = 3
		s.pass(1 - s.p.first)
	case s.due(toMan):
		s.pass(toMan)
	case s.due(toDog):
		s.pass(toDog)
	default:
		s.endStep()
	}
}

// due reports whether what has arrived made a loop want another pass in this
// step: a dial at once.
func (s *modelState) due(end int) bool {
	if !s.ends[end].up || s.paused(end) {
		return false
	}
	if end == toMan {
		return !s.man.Next().After(s.now)
	}
	return slices.ContainsFunc(s.dogs, func(d dog) bool { return !d.m.Next().After(s.now) })
}

// endStep lets time go on.
func (s *modelState) endStep() {
	if s.quiet() {
		s.calm = min(s.calm+1, calmMost)
	} else {
		s.calm = 0
	}
	s.disturbed = false
	s.now = s.now.Add(modelStep)
	s.phase = 0
}
