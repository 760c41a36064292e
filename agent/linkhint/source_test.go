// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"slices"
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
	s := mustStreet(t)
	n := rounds()
	s.quiet(t) // the kernel may announce the new devices as late as a second from now
	for range n {
		s.quiet(t)
		s.first(t)
		s.throttled(t)
		s.setDown(t)
		s.mend(t)
	}
	for _, h := range s.houses {
		t.Run(h.source.String(), func(t *testing.T) { h.mustHaveTold(t, n) })
	}
}

// rounds are more where figures are wanted; see make test-vm.
func rounds() int {
	if agenttest.AllMachines() && vm.Inside() && !withoutRights() {
		return 5
	}
	return 1
}

// quietFor is longer than the kernel's throttle lasts after it has announced a loss.
const quietFor = 1200 * time.Millisecond

// street is a house for each source, so that all of them go through the same rounds,
// and a tap of which none of them may tell. The throttle is one for all of them. Each
// source has devices of its own: a Watcher's look at one has a kernel from 6.8 on
// announce it at once, to all.
type street struct {
	houses    []*house
	elsewhere *node
	t7        *tap
}

// house is a namespace with three taps, and a Watcher with nothing better than the
// source.
type house struct {
	*node
	source     Source
	t0, t1, t2 *tap
}

func mustStreet(t *testing.T) *street {
	t.Helper()
	s := &street{elsewhere: mustNode(t)}
	s.t7 = s.elsewhere.mustTap(t, "t7")
	s.elsewhere.ip(t, "link set t7 up")
	for _, source := range []Source{Rtnetlink, Counter, Kprobe, Fentry} {
		if withoutRights() && source < Counter {
			continue
		}
		h := mustHouse(t, source)
		if h.Source() == source {
			s.houses = append(s.houses, h)
			continue
		}
		t.Run(source.String(), func(t *testing.T) { needSource(t, h, source) })
	}
	return s
}

func mustHouse(t *testing.T, source Source) *house {
	t.Helper()
	h := &house{node: mustNode(t), source: source}
	h.t0, h.t1, h.t2 = h.mustTap(t, "t0"), h.mustTap(t, "t1"), h.mustTap(t, "t2")
	h.ip(t, "link set t0 up", "link set t1 up", "link set t2 up")
	h.watch(t, Config{BPF: true, All: true, Without: betterThan(source)})
	return h
}

// told is how many events there were in all houses.
func (s *street) told() (n int) {
	for _, h := range s.houses {
		n += h.count()
	}
	return n
}

// quiet is a time without any event, after which the kernel announces the next at once.
func (s *street) quiet(t *testing.T) {
	t.Helper()
	before := s.told()
	agenttest.Never(t, quietFor, "an event", func() bool { return s.told() > before })
}

// first are losses after the quiet, of all houses as when a switch dies. What of them
// comes behind the kernel's announcement of rtnetlink's is throttled, which does not
// concern the other sources.
func (s *street) first(t *testing.T) {
	t.Helper()
	var at []int64
	var before []int
	for _, h := range s.houses {
		before = append(before, h.count())
		at = append(at, h.t0.carrier(t, false))
	}
	s.t7.carrier(t, false)
	for i, h := range s.houses {
		h.figure(t, "first", at[i], h.mustEvent(t, "t0", CarrierLost, before[i]))
	}
}

// throttled are losses after the kernel has announced t7's, which nobody has asked
// for: that would end the wait without beginning the throttle. Those that need not
// wait for its end come first.
func (s *street) throttled(t *testing.T) {
	t.Helper()
	s.elsewhere.awaitAnnounced(t, "t7")
	for _, h := range slices.Backward(s.houses) {
		h.throttled(t)
	}
}

func (h *house) throttled(t *testing.T) {
	t.Helper()
	before := h.count()
	at := h.t1.carrier(t, false)
	e := h.mustEvent(t, "t1", CarrierLost, before)
	h.figure(t, "throttled", at, e)
	// Elsewhere on a machine that is not ours alone, somebody may end the throttle's
	// second just then.
	ok := e.Source == h.source || e.Source == Rtnetlink && !vm.Inside()
	ok = ok && (e.Latency < 0) == (e.Source == Rtnetlink)
	ok = ok && (e.Source >= Counter || int64(e.At) >= at) // the kernel's own time
	if !ok {
		t.Errorf("%+v: expected it by %v, after %d", e, h.source, at)
	}
}

// setDown is a call that changes nothing, and a device that is set down. That is told
// behind all that was announced before, so nothing of another namespace is.
func (s *street) setDown(t *testing.T) {
	t.Helper()
	for _, h := range s.houses {
		before := h.count()
		h.t1.carrier(t, false)
		at := h.setDown(t, "t2")
		e := h.mustEvent(t, "t2", AdminDown, before)
		if e.Source != Rtnetlink {
			t.Errorf("%+v: expected it by rtnetlink", e)
		}
		h.figure(t, "admin_down", at, e)
		if h.countOf("t7", CarrierLost) != 0 {
			t.Errorf("%v: told of another namespace", h.source)
		}
		h.figure(t, "foreign", 0, stamped{})
	}
}

// mend is the state before the round. A carrier that comes back is never throttled.
func (s *street) mend(t *testing.T) {
	t.Helper()
	s.t7.carrier(t, true)
	for _, h := range s.houses {
		before := h.count()
		h.ip(t, "link set t2 up")
		h.mustEvent(t, "t2", AdminUp, before)
		h.t0.carrier(t, true)
		h.t1.carrier(t, true)
		h.mustEvent(t, "t0", CarrierBack, before)
		h.mustEvent(t, "t1", CarrierBack, before)
	}
}

// mustHaveTold wants that nothing was told but what happened in this house, whose
// devices have the same names as the others'.
func (h *house) mustHaveTold(t *testing.T, rounds int) {
	t.Helper()
	for _, want := range []struct {
		name  string
		kind  Kind
		times int
	}{
		{"t0", CarrierLost, rounds}, {"t1", CarrierLost, rounds}, {"t2", CarrierLost, 0},
		{"t2", AdminDown, rounds}, {"t7", CarrierLost, 0}, {"t7", CarrierBack, 0},
	} {
		if got := h.countOf(want.name, want.kind); got != want.times {
			t.Errorf("%s, %v: told %d times, want %d", want.name, want.kind, got, want.times)
		}
	}
}

// figure writes down how long an event took to be told; the zero event was not.
func (h *house) figure(t *testing.T, situation string, at int64, e stamped) {
	t.Helper()
	if withoutRights() {
		return
	}
	f := figure.Figure{Situation: situation, Source: h.source.String()}
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
