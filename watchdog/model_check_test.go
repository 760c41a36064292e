// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// checkHeard watches what one frame does to a machine: only a frame of its
// session that is newer than all before is a sign of life.
func (s *modelState) checkHeard(m *heartbeat.Machine, f *wire.Frame, receive func()) {
	before, session := m.LastValid(), m.Session()
	newer := f.Session == session && session != 0 && f.Seq > look(m).uint("heardSeq")
	proof := f.Type == wire.TypeWelcome || newer && (f.Type == wire.TypeBeat || f.Type == wire.TypeBye)
	receive()
	switch after := m.LastValid(); {
	case after == before:
	case after != s.now:
		s.fail("the last valid frame is said to be of another instant than now")
	case !proof:
		s.fail("a %v that proves nothing counts as a sign of life", f.Type)
	}
}

// checkVerdict is property (d): a verdict of silence falls one timeout after the
// last valid frame or later, and one timeout after an own pause.
func (s *modelState) checkVerdict(end int, c heartbeat.Change, lastValid mono.Instant) {
	if !c.Verdict() {
		return
	}
	if !heartbeat.Armed(c.From) {
		s.fail("%s judges a session that never was armed", endName(end))
	}
	if c.Reason != wire.ReasonTimeout {
		return
	}
	if since := s.now.Sub(lastValid); since < modelTimeout {
		s.fail("%s judges %v after the last valid frame", endName(end), since)
	}
	if pause := s.ends[end].pauseEnd; !pause.IsZero() && s.now.Sub(pause) < modelTimeout {
		s.fail("%s judges %v after an own pause", endName(end), s.now.Sub(pause))
	}
}

// checkProven is half of property (c): the watchdog arms a session only when
// each end has heard a beat of the other one in it.
func (s *modelState) checkProven(id uint64) {
	if s.man == nil {
		return // it was proven before conmgr went down
	}
	d := s.findDog(func(d *dog) bool { return d.id == id })
	if s.man.Session() == id && look(d.m).uint("first") > look(s.man).uint("heardSeq") {
		s.fail("session %d is armed, and conmgr has heard no beat in it", id)
	}
}

// checkWarrant is property (a) and the other half of (c). A warrant may follow
// from a silence that (d) judges, or from a wait that was disturbed: while
// nothing is lost, delayed or broken for as long as a wait lasts, and both
// processes run, a live conmgr is back in time.
func (s *modelState) checkWarrant(w *Warrant) {
	s.say("warrant: %v after %v", w.Case, w.Issued.Sub(w.Verdict))
	if w.Session == 0 && w.Case != CaseRestored {
		s.fail("a warrant without an armed session")
	}
	waited := w.Issued.Sub(w.Verdict)
	if w.Case != CaseTimeout && waited < modelTimeout {
		s.fail("a warrant for %v without a wait", w.Case)
	}
	if s.ends[toMan].up && s.calm >= int(modelTimeout/modelStep)-1 { // and the present step
		s.fail("a warrant for a live host (%v): nothing was wrong for a whole timeout", w.Case)
	}
	if pause := s.ends[toDog].pauseEnd; !pause.IsZero() && s.now.Sub(pause) < modelTimeout {
		s.fail("a warrant %v after the agent stood still", s.now.Sub(pause))
	}
}

// String describes a packet in a trace.
func (p packet) String() string {
	switch p.kind {
	case opensStream:
		return fmt.Sprintf("SYN of %d", p.flow)
	case endsStream:
		return fmt.Sprintf("end of %d", p.flow)
	}
	s := fmt.Sprintf("%v %d/%d on %d", p.f.Type, p.f.Session, p.f.Seq, p.flow)
	if p.f.Type == wire.TypeBeat {
		s += fmt.Sprintf(" (%v, ack %d)", p.f.Beat.State, p.f.Beat.Ack)
	}
	return s
}
