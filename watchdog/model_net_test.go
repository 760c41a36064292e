// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// send puts a packet on the network. A stream that is held back holds back all
// that follows.
func (s *modelState) send(p packet) {
	if p.flow == 0 {
		return
	}
	if !s.p.datagram {
		for _, h := range s.held {
			if h.flow == p.flow && h.to == p.to {
				p.due = max(p.due, h.due)
			}
		}
		if p.due == 0 && s.now.Before(s.cutUntil[p.to]) {
			p.due = s.cutUntil[p.to]
		}
		if p.due > 0 {
			s.held = append(s.held, p)
			return
		}
	}
	s.fresh = append(s.fresh, p)
}

// release hands over what was held back until now.
func (s *modelState) release() {
	for _, p := range s.held {
		if !p.due.After(s.now) {
			p.decided, s.disturbed = true, true
			s.fresh = append(s.fresh, p)
		}
	}
	s.held = slices.DeleteFunc(s.held, func(p packet) bool { return !p.due.After(s.now) })
}

// deliver takes the next packet to its end. The kernel works while the process
// is paused.
func (s *modelState) deliver() {
	p := s.fresh[0]
	s.fresh = slices.Delete(s.fresh, 0, 1)
	e := &s.ends[p.to]
	switch {
	case s.p.datagram && s.now.Before(s.cutUntil[p.to]):
		s.say("lost to %s: %v", endName(p.to), p)
	case p.to == toDog && !e.up || p.to == toDog && !s.p.datagram && p.kind == carriesFrame && !s.streams[p.flow]:
		if p.kind != endsStream { // a closed port, or no such connection
			s.send(packet{kind: endsStream, flow: p.flow, to: toMan})
		}
	case p.to == toMan && s.manFlow != p.flow:
		if p.kind == carriesFrame {
			s.closeFlow(p.flow, toDog)
		}
	case p.to == toDog && p.kind == opensStream:
		s.streams[p.flow] = true
		s.handOver(packet{kind: opensStream, flow: p.flow, to: toMan})
	default:
		s.handOver(p)
	}
}

func (s *modelState) handOver(p packet) {
	if s.paused(p.to) {
		s.ends[p.to].inbox = append(s.ends[p.to].inbox, p)
		return
	}
	s.arrive(p)
}

// arrive gives a packet to the daemon.
func (s *modelState) arrive(p packet) {
	if p.to == toDog {
		s.arriveAtDog(p)
		return
	}
	if s.man == nil || p.flow != s.manFlow {
		return
	}
	switch p.kind {
	case opensStream:
		s.connected()
	case endsStream:
		s.manFlow = 0
		s.stepMan(func(out *heartbeat.Output) { s.man.Broken(s.now, out) })
	default:
		s.say("conmgr gets %v", p)
		s.checkHeard(s.man, p.f, func() {
			s.stepMan(func(out *heartbeat.Output) { s.man.Receive(s.now, p.f, out) })
		})
	}
}

func (s *modelState) arriveAtDog(p packet) {
	if p.kind == endsStream {
		delete(s.streams, p.flow)
		if d := s.findDog(func(d *dog) bool { return d.flow == p.flow }); d != nil && !s.p.datagram {
			d.flow = 0
			s.stepDog(d.id, func(m *heartbeat.Machine, out *heartbeat.Output) { m.Broken(s.now, out) })
		}
		return
	}
	s.say("the agent gets %v", p)
	d := s.findDog(func(d *dog) bool {
		if p.f.Type == wire.TypeHello || !s.p.datagram {
			return d.flow == p.flow && (!s.p.datagram || d.m.State() == wire.StateInit)
		}
		return d.flow == p.flow && d.id == p.f.Session
	})
	switch {
	case d != nil:
		id := d.id
		s.checkHeard(d.m, p.f, func() {
			s.stepDog(id, func(m *heartbeat.Machine, out *heartbeat.Output) { m.Receive(s.now, p.f, out) })
		})
	case p.f.Type == wire.TypeHello:
		s.open(p)
	case p.f.Type == wire.TypeBeat && s.p.datagram && s.findDog(func(d *dog) bool { return d.id == p.f.Session }) == nil:
		s.send(packet{flow: p.flow, to: toMan, f: &wire.Frame{
			Header: wire.Header{Type: wire.TypeRefuse},
			Refuse: wire.Refuse{Code: wire.CodeSession, Echo: wire.EchoOf(&p.f.Header)},
		}})
	}
}

// open makes the session that a HELLO asks for.
func (s *modelState) open(p packet) {
	s.lastSession++
	var out heartbeat.Output
	m := heartbeat.NewPassive(&s.p.dog, heartbeat.Opening{
		Session: s.lastSession, Ended: p.f.Hello.Resumes != 0 && s.docket.Terminated(modelHost, modelID),
	}, p.f, s.now, &out)
	s.dogs = append(s.dogs, dog{m: m, id: s.lastSession, flow: p.flow})
	s.finishDog(s.lastSession, mono.Instant(0), &out)
}
