// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/binary"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// startMan starts conmgr in a new incarnation.
func (s *modelState) startMan() {
	s.incarnation++
	s.disturbed = true
	s.ends[toMan] = modelEnd{up: true, pauseEnd: s.ends[toMan].pauseEnd}
	cfg := s.p.man
	cfg.Incarnation = s.incarnation
	s.man = heartbeat.NewActive(cfg, s.now)
	s.say("conmgr starts")
}

// startDog starts the agent, which takes over what it knew.
func (s *modelState) startDog() {
	s.ends[toDog] = modelEnd{up: true, pauseEnd: s.ends[toDog].pauseEnd}
	s.docket = NewDocket(DefaultPolicy())
	s.disturbed = true
	s.say("the agent starts")
	records := s.records
	s.order(func(out *Orders) { s.docket.Restore(s.now, records, out) })
}

// stepMan calls conmgr's machine and carries out what it asks for.
func (s *modelState) stepMan(call func(*heartbeat.Output)) {
	var out heartbeat.Output
	before := s.man.LastValid()
	call(&out)
	for i := range out.Frames {
		s.send(packet{flow: s.manFlow, to: toDog, f: &out.Frames[i]})
	}
	if out.Close != heartbeat.CloseNone && s.manFlow != 0 {
		s.closeFlow(s.manFlow, toDog)
		s.manFlow = 0
	}
	for _, c := range out.Changes {
		s.say("conmgr: %v -> %v (%v)", c.From, c.To, c.Reason)
		s.checkVerdict(toMan, c, before)
	}
	if out.Dial {
		s.dial()
	}
}

func (s *modelState) dial() {
	s.lastFlow++
	s.manFlow = s.lastFlow
	if !s.p.datagram {
		s.send(packet{kind: opensStream, flow: s.manFlow, to: toDog})
		return
	}
	s.connected()
}

func (s *modelState) connected() {
	s.p.nonce = nonceOf(s.manFlow)
	s.stepMan(func(out *heartbeat.Output) { s.man.Connected(s.now, out) })
}

// nonceOf makes the nonce of the attempt that uses a flow.
func nonceOf(flow uint64) (id wire.ID) {
	binary.BigEndian.PutUint64(id[:], flow)
	return id
}

func flowOf(nonce wire.ID) uint64 { return binary.BigEndian.Uint64(nonce[:]) }

// closeFlow ends one side of a connection; the other side's kernel learns it.
func (s *modelState) closeFlow(flow uint64, to int) {
	if !s.p.datagram {
		s.send(packet{kind: endsStream, flow: flow, to: to})
	}
}

func (s *modelState) findDog(match func(*dog) bool) *dog {
	if i := slices.IndexFunc(s.dogs, func(d dog) bool { return match(&d) }); i >= 0 {
		return &s.dogs[i]
	}
	return nil
}

// stepDog calls the machine of one session, as agent/peer and gate do.
func (s *modelState) stepDog(id uint64, call func(*heartbeat.Machine, *heartbeat.Output)) {
	d := s.findDog(func(d *dog) bool { return d.id == id })
	if d == nil {
		return
	}
	var out heartbeat.Output
	before := d.m.LastValid()
	call(d.m, &out)
	s.finishDog(id, before, &out)
}

func (s *modelState) finishDog(id uint64, before mono.Instant, out *heartbeat.Output) {
	d := s.findDog(func(d *dog) bool { return d.id == id })
	for i := range out.Frames {
		s.send(packet{flow: d.flow, to: toMan, f: &out.Frames[i]})
	}
	if out.Close != heartbeat.CloseNone && d.flow != 0 {
		s.closeFlow(d.flow, toMan)
		delete(s.streams, d.flow)
		d.flow = 0
	}
	for _, c := range out.Changes {
		s.changed(id, c, before)
	}
}

// changed is the listener's and the gate's part.
func (s *modelState) changed(id uint64, c heartbeat.Change, before mono.Instant) {
	s.say("watchdog %d: %v -> %v (%v)", id, c.From, c.To, c.Reason)
	s.checkVerdict(toDog, c, before)
	switch {
	case c.From == wire.StateInit && c.To == wire.StateUp:
		s.checkProven(id)
		s.order(func(out *Orders) {
			s.docket.Armed(s.now, id, Client{Addr: modelHost, Conmgr: modelID}, modelTimeout, modelInterval, false, out)
		})
		for _, o := range slices.Clone(s.dogs) {
			if o.id != id && heartbeat.Armed(o.m.State()) {
				s.stepDog(o.id, func(m *heartbeat.Machine, out *heartbeat.Output) { m.Replace(s.now, out) })
			}
		}
	case c.Verdict():
		s.order(func(out *Orders) { s.docket.Ended(s.now, id, c, out) })
	}
	if c.To == wire.StateDown {
		s.dogs = slices.DeleteFunc(s.dogs, func(d dog) bool { return d.id == id })
	}
}

// order calls the docket. The terminator does its work at once.
func (s *modelState) order(call func(*Orders)) {
	var out Orders
	call(&out)
	for _, e := range out.Events {
		s.say("docket: %v (%v)", e.Kind, e.Case)
	}
	if out.Persist {
		s.records = s.docket.Records()
	}
	for _, w := range out.Execute {
		s.checkWarrant(&w)
		s.order(func(out *Orders) { s.docket.Done(s.now, w.ID, out) })
	}
}

// pass is one turn of an end's loop: what came while it stood still, then what
// is due.
func (s *modelState) pass(end int) {
	e := &s.ends[end]
	switch {
	case !e.up || s.paused(end) && s.now.Before(e.pausedUntil):
		return
	case s.paused(end):
		s.resume(end)
	}
	if end == toMan {
		if s.man != nil && !s.man.Next().After(s.now) {
			s.stepMan(func(out *heartbeat.Output) { s.man.Tick(s.now, out) })
		}
		return
	}
	for _, d := range slices.Clone(s.dogs) {
		if !d.m.Next().After(s.now) {
			s.stepDog(d.id, func(m *heartbeat.Machine, out *heartbeat.Output) { m.Tick(s.now, out) })
		}
	}
	if !s.docket.Next().After(s.now) {
		s.order(func(out *Orders) { s.docket.Tick(s.now, out) })
	}
}

// resume tells the machines how late this pass is and reads what has come.
func (s *modelState) resume(end int) {
	e := &s.ends[end]
	late := s.now.Sub(e.pausedFrom)
	inbox := e.inbox
	e.pausedFrom, e.inbox = 0, nil
	s.disturbed = true
	s.say("%s goes on, late by %v", endName(end), late)
	if late > modelTimeout/4 {
		e.pauseEnd = s.now
	}
	if end == toMan {
		s.stepMan(func(out *heartbeat.Output) { s.man.Paused(s.now, late, out) })
	} else {
		for _, d := range slices.Clone(s.dogs) {
			s.stepDog(d.id, func(m *heartbeat.Machine, out *heartbeat.Output) { m.Paused(s.now, late, out) })
		}
	}
	for _, p := range inbox {
		s.arrive(p)
	}
}

func endName(end int) string { return [...]string{"conmgr", "the agent"}[end] }
