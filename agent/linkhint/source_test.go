// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/figure"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// betterThan are the sources above one.
func betterThan(s Source) (better []Source) {
	for b := Fentry; b < s; b++ {
		better = append(better, b)
	}
	return better
}

// needSource skips where the kernel cannot do it, but never in our own virtual
// machine, whose kernel can.
func needSource(t *testing.T, l links, want Source) {
	t.Helper()
	if l.Source() == want {
		return
	}
	if vm.Inside() {
		t.Fatalf("source %v, want %v: %+v", l.Source(), want, l.Missing())
	}
	t.Skipf("this kernel does not do %v: see TestInVirtualMachine", want)
}

// Each source tells what it is for, in every situation, and nothing that is not. How
// long that takes is written down, not judged.
func TestSources(t *testing.T) {
	s := mustStand(t)
	for _, source := range []Source{Fentry, Kprobe, Counter, Rtnetlink} {
		if withoutRights() && source < Counter {
			continue
		}
		t.Run(source.String(), func(t *testing.T) {
			s.mustBegin(t, source)
			for range rounds() {
				s.firstAndThrottled(t)
				s.foreignAndDown(t)
				s.mend(t)
			}
			s.mustHaveTold(t, rounds())
		})
	}
}

// rounds are more where figures are wanted; see make test-vm.
func rounds() int {
	if agenttest.AllMachines() && vm.Inside() && !withoutRights() {
		return 5
	}
	return 1
}

// quietFor is longer than the kernel's throttle lasts.
const quietFor = 1200 * time.Millisecond

// stand is three taps, one more in another namespace, and a Watcher with one source.
type stand struct {
	*node
	source         Source
	t0, t1, t2, t7 *tap
	elsewhere      *node
}

func mustStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{node: mustNode(t), elsewhere: mustNode(t)}
	s.t0, s.t1, s.t2 = s.mustTap(t, "t0"), s.mustTap(t, "t1"), s.mustTap(t, "t2")
	s.t7 = s.elsewhere.mustTap(t, "t7")
	s.ip(t, "link set t0 up", "link set t1 up", "link set t2 up")
	s.elsewhere.ip(t, "link set t7 up")
	return s
}

// mustBegin watches with nothing better than the source.
func (s *stand) mustBegin(t *testing.T, source Source) {
	t.Helper()
	s.recorder, s.source = new(recorder), source
	s.watch(t, Config{BPF: true, All: true, Without: betterThan(source)})
	needSource(t, s, source)
}

// firstAndThrottled are two losses, the second one in the throttle that the first one
// has begun.
func (s *stand) firstAndThrottled(t *testing.T) {
	t.Helper()
	before := s.count()
	agenttest.Never(t, quietFor, "an event", func() bool { return s.count() > before })
	s.figure(t, "first", s.t0.carrier(t, false), s.mustEvent(t, "t0", CarrierLost, before))
	s.awaitAnnounced(t, "t0")
	at := s.t1.carrier(t, false)
	e := s.mustEvent(t, "t1", CarrierLost, before)
	// Elsewhere on a machine that is not ours alone, somebody may end the throttle's
	// second just then.
	ok := e.Source == s.source || e.Source == Rtnetlink && !vm.Inside()
	ok = ok && (e.Latency < 0) == (e.Source == Rtnetlink)
	ok = ok && (e.Source >= Counter || int64(e.At) >= at) // the kernel's own time
	if !ok {
		t.Errorf("%+v: expected it by %v, after %d", e, s.source, at)
	}
	s.figure(t, "throttled", at, e)
}

// foreignAndDown is a call that changes nothing and a loss in another namespace, and
// behind both, a loss and a device that is set down here: told in this order.
func (s *stand) foreignAndDown(t *testing.T) {
	t.Helper()
	before := s.count()
	s.t1.carrier(t, false)
	s.t7.carrier(t, false)
	s.t2.carrier(t, false)
	s.mustEvent(t, "t2", CarrierLost, before)
	s.awaitAnnounced(t, "t2")
	s.elsewhere.awaitAnnounced(t, "t7")
	at := s.setDown(t, "t2")
	e := s.mustEvent(t, "t2", AdminDown, before)
	if e.Source != Rtnetlink {
		t.Errorf("%+v: expected it by rtnetlink", e)
	}
	s.figure(t, "admin_down", at, e)
	if s.countOf("t7", CarrierLost) != 0 {
		t.Error("told of another namespace")
	}
	s.figure(t, "foreign", 0, stamped{})
}

// mend is the state before the round. A carrier that comes back to a device that is
// up is never throttled, and begins nothing.
func (s *stand) mend(t *testing.T) {
	t.Helper()
	before := s.count()
	s.ip(t, "link set t2 up")
	s.mustEvent(t, "t2", AdminUp, before)
	for _, p := range []*tap{s.t0, s.t1, s.t2, s.t7} {
		p.carrier(t, true)
	}
	for _, name := range []string{"t0", "t1", "t2"} {
		s.mustEvent(t, name, CarrierBack, before)
	}
}

// mustHaveTold wants that nothing was told but what happened.
func (s *stand) mustHaveTold(t *testing.T, rounds int) {
	t.Helper()
	for _, name := range []string{"t0", "t1", "t2"} {
		if got := s.countOf(name, CarrierLost); got != rounds {
			t.Errorf("%s: %d losses, want %d", name, got, rounds)
		}
	}
	if got := s.countOf("t2", AdminDown); got != rounds {
		t.Errorf("t2: set down %d times, want %d", got, rounds)
	}
}

// figure writes down how long an event took to be told; the zero event was not.
func (s *stand) figure(t *testing.T, situation string, at int64, e stamped) {
	t.Helper()
	if withoutRights() {
		return
	}
	f := figure.Figure{Situation: situation, Source: s.source.String()}
	if e.Kind != 0 {
		f.Told, f.MS = true, time.Duration(e.delivered-at).Seconds()*1000
	}
	figure.Log(t, f)
}

// awaitAnnounced waits until the kernel has announced a loss: operstate changes only
// then, and looking at it does not bring that about.
func (n *node) awaitAnnounced(t *testing.T, name string) {
	t.Helper()
	agenttest.Eventually(t, limit, name+" is announced", func() bool { return n.sysfs(name, "operstate") == "down" })
}

// setDown returns when that began.
func (n *node) setDown(t *testing.T, name string) (at int64) {
	t.Helper()
	err := n.host.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		at = int64(clock.Now())
		return netlink.LinkSetDown(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}
