// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// TestDocketTerminated: a client whose sessions were ended is told so when it is
// back, until it is armed; whom nobody was killed of is not.
func TestDocketTerminated(t *testing.T) {
	told := func(s *story) bool { return s.d.Terminated(hostA, conmgr1) }
	begin := func(p PolicyConfig) *story {
		s := newStory(t, p)
		s.armed(1, hostA, conmgr1)
		if told(s) {
			t.Error("told while all is well")
		}
		s.ended(1, wire.ReasonTimeout)
		return s
	}
	s := begin(PolicyConfig{})
	if !told(s) {
		t.Error("not told while the warrant runs")
	}
	s.d.Done(s.now, s.out.Execute[0].ID, &s.out)
	if !told(s) || s.d.Terminated(hostA, conmgr2) {
		t.Error("not told, or another conmgr is told, when the warrant is done")
	}
	s.armed(2, hostA, conmgr1)
	if told(s) {
		t.Error("told again after it was armed")
	}
	if s = begin(PolicyConfig{DryRun: true}); told(s) {
		t.Error("told in a dry run")
	}
	s.d.Done(s.now, s.out.Execute[0].ID, &s.out)
	if told(s) {
		t.Error("told after a dry run")
	}
	if s = begin(PolicyConfig{OnTimeout: Wait}); told(s) {
		t.Error("told during a wait")
	}
	s = begin(PolicyConfig{OnHang: Wait})
	s.d.Alive(s.now, s.out.Execute[0].ID, &s.out)
	if told(s) {
		t.Error("told although the host was found alive")
	}
}

// TestDocketShortFreezes: an agent on a busy machine is a little late all the time.
// That must not put off a wait for ever, however short the timeout.
func TestDocketShortFreezes(t *testing.T) {
	const short = 300 * time.Millisecond
	s := newStory(t, PolicyConfig{OnTimeout: Wait})
	s.d.Armed(s.now, 1, Client{Addr: hostA, Conmgr: conmgr1}, short, short/3, false, &s.out)
	s.ended(1, wire.ReasonTimeout)
	for range 8 {
		s.freeze(leastWait/4 + leastWait/8)
	}
	s.want(1, 0)
}
