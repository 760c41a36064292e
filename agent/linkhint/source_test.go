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
				s.losses(t)
				s.setDownBehind(t)
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

// quietFor is longer than the kernel's throttle lasts, twice: a loss that was told
// inside begins it anew when the kernel announces it.
const quietFor = 2200 * time.Millisecond

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

// losses are one after a time without any, one in another namespace, and one in the
// throttle: the other namespace's is announced then, and nobody here has asked for
// that device, which would end the wait without beginning the throttle.
func (s *stand) losses(t *testing.T) {
	t.Helper()
	before := s.count()
	agenttest.Never(t, quietFor, "an event", func() bool { return s.count() > before })
	at := s.t0.carrier(t, false)
	s.t7.carrier(t, false)
	s.figure(t, "first", at, s.mustEvent(t, "t0", CarrierLost, before))
	s.elsewhere.awaitAnnounced(t, "t7")
	at = s.t1.carrier(t, false)
	e := s.mustEvent(t, "t1", CarrierLost, before)
	s.figure(t, "throttled", at, e)
	// Elsewhere on a machine that is not ours alone, somebody may end the throttle's
	// second just then.
	ok := e.Source == s.source || e.Source == Rtnetlink && !vm.Inside()
	ok = ok && (e.Latency < 0) == (e.Source == Rtnetlink)
	ok = ok && (e.Source >= Counter || int64(e.At) >= at) // the kernel's own time
	if !ok {
		t.Errorf("%+v: expected it by %v, after %d", e, s.source, at)
	}
}

// setDownBehind is a call that changes nothing, and a device that is set down. That is
// told behind all that was announced before, so nothing of another namespace is.
func (s *stand) setDownBehind(t *testing.T) {
	t.Helper()
	before := s.count()
	s.t1.carrier(t, false)
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

// mend is the state before the round. A carrier that comes back is never throttled.
func (s *stand) mend(t *testing.T) {
	t.Helper()
	before := s.count()
	s.ip(t, "link set t2 up")
	s.mustEvent(t, "t2", AdminUp, before)
	for _, p := range []*tap{s.t0, s.t1, s.t7} {
		p.carrier(t, true)
	}
	for _, name := range []string{"t0", "t1"} {
		s.mustEvent(t, name, CarrierBack, before)
	}
}

// mustHaveTold wants that nothing was told but what happened.
func (s *stand) mustHaveTold(t *testing.T, rounds int) {
	t.Helper()
	for _, want := range []struct {
		name  string
		kind  Kind
		times int
	}{
		{"t0", CarrierLost, rounds}, {"t1", CarrierLost, rounds}, {"t2", CarrierLost, 0},
		{"t2", AdminDown, rounds}, {"t7", CarrierLost, 0}, {"t7", CarrierBack, 0},
	} {
		if got := s.countOf(want.name, want.kind); got != want.times {
			t.Errorf("%s, %v: told %d times, want %d", want.name, want.kind, got, want.times)
		}
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
