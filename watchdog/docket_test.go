// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	testTimeout  = 3 * time.Second
	testInterval = time.Second
)

var (
	hostA   = netip.MustParseAddr("192.0.2.1")
	hostB   = netip.MustParseAddr("192.0.2.2")
	conmgr1 = wire.ID{1}
	conmgr2 = wire.ID{2}
)

// story drives a docket in virtual time and keeps what it ordered.
type story struct {
	t   *testing.T
	d   *Docket
	now mono.Instant
	out Orders
}

func newStory(t *testing.T, p PolicyConfig) *story {
	return &story{t: t, d: NewDocket(p), now: 1_000_000_000_000}
}

func (s *story) armed(session uint64, addr netip.Addr, conmgr wire.ID) {
	s.d.Armed(s.now, session, Client{Addr: addr, Conmgr: conmgr}, testTimeout, testInterval, false, &s.out)
}

func (s *story) ended(session uint64, reason wire.Reason) { s.endedBy(session, s.change(reason)) }

func (s *story) endedBy(session uint64, ch heartbeat.Change) {
	s.d.Ended(s.now, session, ch, &s.out)
}

func (s *story) change(reason wire.Reason) heartbeat.Change {
	return heartbeat.Change{
		At: s.now, From: wire.StateUp, To: wire.StateDown, Reason: reason,
		LastValid: s.now.Add(-testTimeout), Silence: testTimeout,
	}
}

// pass lets time go on, waking the docket when it asks to be woken.
func (s *story) pass(d time.Duration) {
	until := s.now.Add(d)
	for !s.d.Next().After(until) {
		s.now = max(s.now, s.d.Next())
		s.d.Tick(s.now, &s.out)
	}
	s.now = until
}

// freeze lets time go on while the agent stands still.
func (s *story) freeze(d time.Duration) {
	s.now = s.now.Add(d)
	s.d.Tick(s.now, &s.out)
}

// want compares the number of warrants and closed ones so far.
func (s *story) want(warrants, closed int) {
	s.t.Helper()
	if len(s.out.Execute) != warrants || len(s.out.Close) != closed {
		s.t.Fatalf("at %v: %d warrants, %d closed: want %d, %d\n%+v", s.now, len(s.out.Execute), len(s.out.Close), warrants, closed, s.out)
	}
}

func (s *story) states() string {
	var states string
	for _, v := range s.d.View() {
		states += fmt.Sprintf("%s/%d:%s ", v.Addr, v.Conmgr[0], v.State)
	}
	return states
}

// TestDocketTable enumerates every reason, with and without an own pause, under
// every action of its case: what happens at once, and after one timeout.
func TestDocketTable(t *testing.T) {
	const now, later, never = "now", "after a timeout", "never"
	kases := map[wire.Reason]Case{
		wire.ReasonTimeout: CaseTimeout, wire.ReasonLinkDown: CaseTimeout, wire.ReasonReplaced: CaseTimeout,
		wire.ReasonDisconnect: CaseDisconnect, wire.ReasonPeerDown: CaseDisconnect,
		wire.ReasonStop: CaseShutdown, wire.ReasonShutdown: CaseShutdown,
		wire.ReasonRestart: CaseShutdown, wire.ReasonLeave: CaseShutdown,
	}
	rows := 0
	for reason := range wire.Reason(22) {
		kase, known := kases[reason]
		if !known {
			kase = CaseDisconnect
		}
		for _, action := range []Action{Terminate, Wait, Ignore} {
			for _, ownPause := range []bool{false, true} {
				want := map[Action]string{Terminate: now, Wait: later, Ignore: never}[action]
				gentle := ownPause || reason == wire.ReasonRestart || reason == wire.ReasonReplaced
				if want == now && gentle {
					want = later
				}
				if reason == wire.ReasonLeave {
					want = never
				}
				rows++
				t.Run(fmt.Sprintf("%s/%s/%v", reason, action, ownPause), func(t *testing.T) {
					// Every other case says the opposite, so that a mix-up shows.
					p := PolicyConfig{OnTimeout: Ignore, OnHang: Ignore, OnDisconnect: Ignore, OnShutdown: Ignore}
					if action == Ignore {
						p = PolicyConfig{}
					}
					*map[Case]*Action{CaseTimeout: &p.OnTimeout, CaseDisconnect: &p.OnDisconnect, CaseShutdown: &p.OnShutdown}[kase] = action
					s := newStory(t, p)
					s.armed(7, hostA, conmgr1)
					ch := s.change(reason)
					ch.OwnPause = ownPause
					verdict := s.now
					s.endedBy(7, ch)
					got := never
					if len(s.out.Execute) > 0 {
						got = now
					}
					s.pass(testTimeout - 1)
					if got == never && len(s.out.Execute) > 0 {
						t.Fatal("warrant before the wait was over")
					}
					s.pass(1)
					if got == never && len(s.out.Execute) > 0 {
						got = later
					}
					s.pass(time.Hour)
					if got != want || len(s.out.Execute) > 1 {
						t.Fatalf("warrant %s (%d): want %s", got, len(s.out.Execute), want)
					}
					if got == never {
						if s.d.Next() != mono.Never || len(s.d.Records()) != 0 {
							t.Fatalf("something is left: %s", s.states())
						}
						return
					}
					w := s.out.Execute[0]
					if w.Case != kase || w.Reason != reason || w.Verdict != verdict || w.Session != 7 || w.Generation != 1 ||
						w.Addr != hostA || w.Timeout != testTimeout || w.Replication == kase.HostAlive() {
						t.Errorf("warrant %+v", w)
					}
				})
			}
		}
	}
	if rows != 22*6 {
		t.Errorf("%d rows", rows)
	}
}

func TestDocketUnarmed(t *testing.T) {
	s := newStory(t, PolicyConfig{})
	s.ended(1, wire.ReasonTimeout)
	s.d.Armed(s.now, 2, Client{Addr: hostA, Conmgr: conmgr1}, testTimeout, testInterval, true, &s.out)
	s.ended(2, wire.ReasonTimeout)
	s.armed(3, hostB, conmgr1)
	s.endedBy(3, heartbeat.Change{At: s.now, From: wire.StateUp, To: wire.StateLate, Reason: wire.ReasonTimeout})
	s.pass(time.Hour)
	s.want(0, 0)
}

func TestDocketProtected(t *testing.T) {
	p := PolicyConfig{OnTimeout: Wait}
	s := newStory(t, p)
	s.armed(1, hostA, conmgr1)
	s.ended(1, wire.ReasonTimeout)
	p.Protected = func(a netip.Addr) bool { return a == hostA }
	s.d.SetPolicy(p)
	s.pass(time.Hour)
	s.armed(2, hostA, conmgr1)
	s.ended(2, wire.ReasonTimeout)
	s.d.Restore(s.now, []ArmedRecord{{Client: Client{Addr: hostA}, Timeout: testTimeout}}, &s.out)
	s.pass(time.Hour)
	s.want(0, 0)
	if got := s.states(); got != "" {
		t.Errorf("relations %s", got)
	}
}

func TestDocketComeback(t *testing.T) {
	for _, tc := range []struct {
		name            string
		policy          PolicyConfig
		back            wire.ID
		warrants, close int
	}{
		{"wait, same conmgr", PolicyConfig{OnTimeout: Wait}, conmgr1, 0, 0},
		{"wait, another conmgr spares", PolicyConfig{OnTimeout: Wait}, conmgr2, 0, 0},
		{"wait, another conmgr, shared terminate", PolicyConfig{OnTimeout: Wait, SharedAddress: TerminateShared}, conmgr2, 1, 0},
		{"warrant, same conmgr", PolicyConfig{}, conmgr1, 1, 1},
		{"warrant, another conmgr", PolicyConfig{}, conmgr2, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory(t, tc.policy)
			s.armed(1, hostA, conmgr1)
			s.ended(1, wire.ReasonTimeout)
			s.pass(testTimeout / 2)
			s.armed(2, hostA, tc.back)
			s.pass(time.Hour)
			s.want(tc.warrants, tc.close)
			for _, id := range s.out.Close {
				s.d.Done(s.now, id, &s.out)
				s.d.Alive(s.now, id, &s.out)
			}
			s.want(tc.warrants, tc.close)
		})
	}
}

// TestDocketReplaced: the newer session takes over, whichever of the two is
// told first; only when it never arms is the client judged.
func TestDocketReplaced(t *testing.T) {
	s := newStory(t, PolicyConfig{})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr1)
	s.ended(1, wire.ReasonReplaced)
	s.ended(1, wire.ReasonTimeout)
	s.pass(time.Hour)
	s.want(0, 0)
	s.ended(2, wire.ReasonReplaced)
	s.armed(3, hostA, conmgr1)
	s.pass(time.Hour)
	s.want(0, 0)
	s.ended(3, wire.ReasonTimeout)
	s.want(1, 0)
	if w := s.out.Execute[0]; w.Generation != 3 || w.Session != 3 {
		t.Errorf("warrant %+v: want the third generation", w)
	}
}

// TestDocketShared: an address is spared while another armed session of it is
// alive; the last one's end counts for all.
func TestDocketShared(t *testing.T) {
	s := newStory(t, PolicyConfig{OnDisconnect: Wait})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr2)
	s.armed(3, hostB, conmgr1)
	s.ended(1, wire.ReasonTimeout)
	s.pass(time.Hour)
	s.want(0, 0)
	s.ended(2, wire.ReasonTimeout)
	s.want(1, 0)
	if w := s.out.Execute[0]; w.Verdict != s.now || w.Addr != hostA {
		t.Errorf("warrant %+v", w)
	}
	if got, want := s.states(), "192.0.2.1/1:warranted 192.0.2.1/2:warranted 192.0.2.2/1:armed "; got != want {
		t.Errorf("states %s: want %s", got, want)
	}
	s.d.Done(s.now, s.out.Execute[0].ID, &s.out)
	if got, want := s.states(), "192.0.2.2/1:armed "; got != want {
		t.Errorf("states %s: want %s", got, want)
	}
}

// TestDocketSharedLeave: the shield leaves nobody behind, so the spared one is
// judged: only what began before its own verdict, replication spared.
func TestDocketSharedLeave(t *testing.T) {
	s := newStory(t, PolicyConfig{})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr2)
	s.ended(1, wire.ReasonTimeout)
	verdict := s.now
	s.pass(time.Minute)
	s.ended(2, wire.ReasonLeave)
	s.want(1, 0)
	if w := s.out.Execute[0]; w.Verdict != verdict || w.Replication {
		t.Errorf("warrant %+v", w)
	}
}

// TestDocketSharedWait: a waiting conmgr shields where the host lives, and not
// against silence.
func TestDocketSharedWait(t *testing.T) {
	s := newStory(t, PolicyConfig{OnDisconnect: Wait})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr2)
	s.ended(1, wire.ReasonDisconnect)
	s.pass(testTimeout / 2)
	s.ended(2, wire.ReasonRestart)
	s.pass(testTimeout / 2)
	s.want(0, 0) // the first one's wait is over, the second may still come back
	s.armed(3, hostA, conmgr2)
	s.pass(time.Hour)
	s.want(0, 0)
	s.ended(3, wire.ReasonTimeout)
	s.want(1, 0)

	// The warrant covers the latest verdict, whoever leads it.
	s = newStory(t, PolicyConfig{OnDisconnect: Wait})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr2)
	s.armed(3, hostA, wire.ID{3})
	s.ended(1, wire.ReasonDisconnect)
	s.pass(time.Second)
	s.ended(2, wire.ReasonTimeout)
	latest := s.now
	s.pass(time.Second)
	s.ended(3, wire.ReasonLeave)
	s.want(0, 0)
	s.pass(time.Second)
	s.want(1, 0)
	if w := s.out.Execute[0]; w.Verdict != latest || w.Session != 1 {
		t.Errorf("warrant %+v", w)
	}

	s = newStory(t, PolicyConfig{OnDisconnect: Wait})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostA, conmgr2)
	s.ended(1, wire.ReasonDisconnect)
	s.ended(2, wire.ReasonTimeout)
	s.want(1, 0)
}

func TestDocketRestore(t *testing.T) {
	record := ArmedRecord{Client: Client{Addr: hostA, Conmgr: conmgr1}, Timeout: testTimeout, Interval: testInterval}
	for _, tc := range []struct {
		name   string
		policy Action
		after  time.Duration // 0: never
	}{
		{"terminate", Terminate, testTimeout},
		{"wait", Wait, 2 * testTimeout},
		{"ignore", Ignore, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory(t, PolicyConfig{OnTimeout: tc.policy})
			s.d.Restore(s.now, []ArmedRecord{record, {}, {Client: record.Client, Timeout: -1}}, &s.out)
			ready := s.now
			if diff := cmp.Diff([]ArmedRecord{record}, s.d.Records(), cmp.Comparer(sameAddr)); diff != "" {
				t.Errorf("records (-want +got)\n%s", diff)
			}
			if tc.after == 0 {
				s.pass(time.Hour)
				s.want(0, 0)
				return
			}
			s.pass(tc.after - 1)
			s.want(0, 0)
			s.pass(1)
			s.want(1, 0)
			if w := s.out.Execute[0]; w.Case != CaseRestored || w.Verdict != ready || w.Issued != s.now {
				t.Errorf("warrant %+v", w)
			}
		})
	}
	t.Run("comeback", func(t *testing.T) {
		s := newStory(t, PolicyConfig{})
		s.d.Restore(s.now, []ArmedRecord{record}, &s.out)
		s.pass(testTimeout - 1)
		s.armed(1, hostA, conmgr1)
		s.d.Restore(s.now, []ArmedRecord{record}, &s.out)
		s.pass(time.Hour)
		s.want(0, 0)
	})
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// TestDocketLeastWait: a conmgr with a timeout of less than the pause between its
// attempts has time to come back.
func TestDocketLeastWait(t *testing.T) {
	const short = 300 * time.Millisecond
	client := Client{Addr: hostA, Conmgr: conmgr1}
	s := newStory(t, PolicyConfig{OnDisconnect: Wait})
	s.d.Armed(s.now, 1, client, short, short/3, false, &s.out)
	s.ended(1, wire.ReasonDisconnect)
	s.pass(leastWait - 1)
	s.want(0, 0)
	s.pass(1)
	s.want(1, 0)

	s = newStory(t, PolicyConfig{})
	s.d.Restore(s.now, []ArmedRecord{{Client: client, Timeout: short}}, &s.out)
	s.pass(leastWait - 1)
	s.want(0, 0)
	s.pass(1)
	s.want(1, 0)
}

// TestDocketFreeze: a wait that the agent slept through starts anew, however
// short of its end the agent woke.
func TestDocketFreeze(t *testing.T) {
	s := newStory(t, PolicyConfig{OnTimeout: Wait})
	s.armed(1, hostA, conmgr1)
	s.ended(1, wire.ReasonTimeout)
	s.pass(time.Millisecond)
	s.freeze(testTimeout)
	s.want(0, 0)
	s.pass(testTimeout - time.Millisecond)
	s.want(0, 0)
	s.pass(time.Millisecond)
	s.want(1, 0)
	if !s.out.Execute[0].OwnPause {
		t.Error("the record does not tell of the own pause")
	}
}

func TestDocketPause(t *testing.T) {
	s := newStory(t, PolicyConfig{})
	s.armed(1, hostA, conmgr1)
	s.armed(2, hostB, conmgr2)
	s.ended(1, wire.ReasonTimeout)
	s.want(1, 0)
	s.d.Pause(s.now, s.now.Add(time.Minute), &s.out)
	s.want(1, 1)
	s.d.Done(s.now, s.out.Close[0], &s.out)
	s.ended(2, wire.ReasonTimeout)
	s.pass(time.Minute - 1)
	s.want(1, 1)
	if got, want := s.states(), "192.0.2.1/1:suspended 192.0.2.2/2:suspended "; got != want {
		t.Errorf("states %s: want %s", got, want)
	}
	s.pass(testTimeout)
	s.want(1, 1) // the pause is over: a fresh look first
	s.armed(3, hostB, conmgr2)
	s.pass(1)
	s.want(2, 1)
	if w := s.out.Execute[1]; w.Addr != hostA {
		t.Errorf("warrant %+v", w)
	}
	s.d.Pause(s.now, mono.Never, &s.out)
	s.d.Pause(s.now, 0, &s.out)
	if !s.d.PausedUntil().IsZero() {
		t.Error("still paused")
	}
}

func TestDocketAlive(t *testing.T) {
	for _, tc := range []struct {
		policy          Action
		atOnce, delayed int
	}{{Terminate, 2, 2}, {Wait, 1, 2}, {Ignore, 1, 1}} {
		t.Run(tc.policy.String(), func(t *testing.T) {
			s := newStory(t, PolicyConfig{OnHang: tc.policy})
			s.armed(1, hostA, conmgr1)
			s.ended(1, wire.ReasonTimeout)
			s.d.Alive(s.now, s.out.Execute[0].ID, &s.out)
			s.want(tc.atOnce, 0)
			s.pass(time.Hour)
			s.want(tc.delayed, 0)
			for _, w := range s.out.Execute[1:] {
				if w.Case != CaseHang || w.Replication || w.ID == s.out.Execute[0].ID {
					t.Errorf("warrant %+v", w)
				}
			}
		})
	}
}

// TestDocketBounds: a client that always comes as another one fills nothing.
func TestDocketBounds(t *testing.T) {
	s := newStory(t, PolicyConfig{OnTimeout: Wait})
	for i := range uint64(1000) {
		s.armed(i, hostA, wire.ID{byte(i), byte(i >> 8)})
		s.ended(i, wire.ReasonTimeout)
	}
	if n := len(s.d.Records()); n != maxPerSite {
		t.Errorf("%d relations: want %d", n, maxPerSite)
	}
	for i := range uint64(maxPerSite + 1) {
		s.armed(2000+i, hostB, wire.ID{byte(i)})
	}
	s.out.Reset()
	s.ended(2000+maxPerSite, wire.ReasonTimeout)
	s.want(0, 0)
}
