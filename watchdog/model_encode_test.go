// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// stateKey is a hash of the canonical form of a state. Two states with one form
// behave alike: instants are relative to now and in steps, sessions and flows
// relative to the latest, sequence numbers relative to what their sender has sent.
type stateKey [2]uint64

var modelSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

type encoder struct {
	s *modelState
	b []byte
}

// key returns the state's key, without what the adversary has left unless
// budget says so.
func (s *modelState) key(budget bool, buf []byte) (stateKey, []byte) {
	e := encoder{s, buf[:0]}
	e.state()
	if budget {
		e.num(s.budget)
	}
	return stateKey{maphash.Bytes(modelSeeds[0], e.b), maphash.Bytes(modelSeeds[1], e.b)}, e.b
}

func (e *encoder) num(n int) { e.b = binary.AppendVarint(e.b, int64(n)) }

func (e *encoder) flag(f bool) {
	if f {
		e.b = append(e.b, 1)
		return
	}
	e.b = append(e.b, 0)
}

// farAway is beyond every instant that decides anything, in steps.
const farAway = 4 * int(modelTimeout/modelStep)

// instant puts in an instant as the step that is the first not before it: only
// at steps anything is looked at.
func (e *encoder) instant(at mono.Instant) {
	switch {
	case at.IsZero():
		e.num(-farAway - 1)
	case at == mono.Never:
		e.num(farAway + 1)
	default:
		d := at.Sub(e.s.now)
		n := int(d / modelStep)
		if d > 0 && d%modelStep != 0 {
			n++
		}
		e.num(min(max(n, -farAway), farAway))
	}
}

func (e *encoder) flow(f uint64) {
	if f == 0 {
		e.num(-1)
		return
	}
	e.num(int(e.s.lastFlow - f))
}

func (e *encoder) session(id uint64) {
	if id == 0 {
		e.num(-1)
		return
	}
	e.num(int(e.s.lastSession - id))
}

// manBase is what conmgr's sequence numbers on a flow are relative to.
func (e *encoder) manBase(flow uint64) uint64 {
	if e.s.man != nil && e.s.manFlow == flow && flow != 0 {
		return look(e.s.man).uint("seq")
	}
	if d := e.s.findDog(func(d *dog) bool { return d.flow == flow }); d != nil {
		return look(d.m).uint("heardSeq")
	}
	return 0
}

// dogBase is the same for the watchdog's numbers in a session.
func (e *encoder) dogBase(id uint64) uint64 {
	if d := e.s.findDog(func(d *dog) bool { return d.id == id }); d != nil {
		return look(d.m).uint("seq")
	}
	if e.s.man != nil && e.s.man.Session() == id {
		return look(e.s.man).uint("heardSeq")
	}
	return 0
}

func (e *encoder) seq(n, base uint64) {
	if n == 0 {
		e.num(1 << 20)
		return
	}
	e.num(int(int64(base - n)))
}

func (e *encoder) state() {
	s := e.s
	e.num(s.phase)
	e.num(s.calm)
	e.flag(s.disturbed)
	for i := range s.ends {
		e.end(i)
	}
	e.flag(s.man != nil)
	if s.man != nil {
		e.machine(s.man, e.manBase(s.manFlow), e.dogBase(s.man.Session()))
		e.flow(s.manFlow)
	}
	e.num(len(s.dogs))
	for i := range s.dogs {
		d := &s.dogs[i]
		e.session(d.id)
		e.flow(d.flow)
		e.machine(d.m, e.dogBase(d.id), e.manBase(d.flow))
	}
	e.docket()
	for flow := max(s.lastFlow, 16) - 15; flow <= s.lastFlow; flow++ {
		e.flag(s.streams[flow])
	}
	e.packets(s.fresh)
	e.packets(s.held)
}

func (e *encoder) end(i int) {
	end := &e.s.ends[i]
	e.flag(end.up)
	if !end.up {
		e.instant(end.back)
	}
	e.instant(end.pausedFrom)
	if !end.pausedFrom.IsZero() {
		e.instant(end.pausedUntil)
	}
	if e.s.now.Sub(end.pauseEnd) < modelTimeout {
		e.instant(end.pauseEnd)
	}
	e.num(int(max(e.s.cutUntil[i].Sub(e.s.now), 0) / modelStep))
	e.packets(end.inbox)
}

// machine puts in one end; own and peers are the bases of both ends' numbers.
func (e *encoder) machine(m *heartbeat.Machine, own, peers uint64) {
	p := look(m)
	e.b = append(e.b, byte(m.State()), byte(m.Why()), byte(p.uint("link")))
	acked := p.bool("acked")
	e.flag(acked)
	e.flag(p.bool("held"))
	e.flag(p.bool("stopped"))
	e.session(m.Session())
	if !acked {
		e.seq(p.uint("first"), own)
		e.flow(flowOf(m.Nonce()))
	}
	e.seq(p.uint("heardSeq"), peers)
	for _, name := range []string{
		"lastValid", "pauseGuard", "deadline", "lateAt", "nextBeat", "nextProbe", "retryAt", "dialedAt", "attemptUntil", "helloAt",
	} {
		e.instant(p.instant(name))
	}
	e.flag(p.instant("lastAnswer") == e.s.now) // answers are limited within a step only
}

func (e *encoder) docket() {
	s := e.s
	e.flag(s.docket != nil)
	if s.docket == nil {
		e.num(len(s.records))
		return
	}
	e.flag(s.docket.Terminated(modelHost, modelID))
	e.num(s.docket.count)
	for _, r := range s.docket.sorted() { // one client: one at most
		e.b = append(e.b, byte(r.state), byte(r.kase), byte(r.reason))
		e.flag(r.ownPause)
		e.flag(r.hostAlive)
		e.flag(r.granted)
		e.session(r.session)
		e.instant(r.deadline)
		e.instant(r.wake)
		e.instant(r.verdict)
	}
}

func (e *encoder) packets(list []packet) {
	e.num(len(list))
	for i := range list {
		p := &list[i]
		e.b = append(e.b, byte(p.kind), byte(p.to))
		e.flow(p.flow)
		e.flag(p.decided)
		e.instant(p.due)
		if p.f != nil {
			e.frame(p, p.f)
		}
	}
}

func (e *encoder) frame(p *packet, f *wire.Frame) {
	e.b = append(e.b, byte(f.Type), byte(f.Flags))
	own, peers := e.manBase(p.flow), e.dogBase(f.Session)
	if p.to == toMan {
		own, peers = peers, own
	}
	e.session(f.Session)
	e.seq(f.Seq, own)
	switch f.Type {
	case wire.TypeHello:
		e.flow(flowOf(f.Hello.Nonce))
	case wire.TypeWelcome:
		e.flow(flowOf(f.Welcome.Echo))
	case wire.TypeRefuse:
		session, seq := f.Refuse.Echoed()
		e.session(session)
		e.seq(seq, e.manBase(p.flow))
	case wire.TypeBye:
		e.b = append(e.b, byte(f.Bye.Kind))
	case wire.TypeBeat:
		e.seq(f.Beat.Ack, peers)
		e.b = append(e.b, byte(f.Beat.State), byte(f.Beat.Reason))
	}
}
