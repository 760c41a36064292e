// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// fake is a source that the test plays.
type fake struct {
	hints    chan carrierEvent
	overruns chan struct{}
	closed   int
}

func newFake() *fake {
	return &fake{hints: make(chan carrierEvent, 16), overruns: make(chan struct{}, 1)}
}

func (f *fake) kind() Source                { return Fentry }
func (f *fake) events() <-chan carrierEvent { return f.hints }
func (f *fake) overrun() <-chan struct{}    { return f.overruns }
func (f *fake) close() error                { f.closed++; return nil }

func (f *fake) open(*slog.Logger, []Source) (carrierSource, []Missing) { return f, nil }

func hint(d device, lost bool) carrierEvent {
	return carrierEvent{index: d.index, name: d.name, lost: lost, at: clock.Now()}
}

// stage is a tap on the way to a peer, and a Watcher that is not run.
type stage struct {
	*node
	tap *tap
	dev device
}

func mustStage(t *testing.T) *stage {
	t.Helper()
	n := mustNode(t)
	s := &stage{node: n, tap: n.mustTap(t, "t0")}
	n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
	s.dev = n.mustDevice(t, "t0")
	n.idle(t, Config{BPF: true}, newFake().open)
	n.w.Watch(addrOf("10.1.0.5"))
	n.w.takeRequests()
	n.w.lookUpSome()
	return s
}

// mustTell wants exactly these kinds of events since the last call.
func (s *stage) mustTell(t *testing.T, what string, want ...Kind) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := len(s.events) == len(want)
	for i, e := range s.events {
		ok = ok && e.Kind == want[i] && e.Name == "t0"
	}
	if !ok {
		t.Errorf("%s: told %+v, want %v", what, s.events, want)
	}
	s.events = nil
}

func (s *stage) mustState(t *testing.T, want State) {
	t.Helper()
	if got := s.last(addrOf("10.1.0.5")); got.State != want {
		t.Errorf("path: %+v, want %v", got, want)
	}
}

// The hook runs before the kernel sets the bit, and the hint may be faster.
func TestHintBeforeTheState(t *testing.T) {
	s := mustStage(t)
	for _, lost := range []bool{true, false} {
		h := hint(s.dev, lost)
		s.w.takeHint(h, true)
		s.w.lookAgain()
		s.mustTell(t, "before")
		s.tap.carrier(t, !lost)
		s.w.lookAgain()
		kind, state := CarrierBack, Good
		if lost {
			kind, state = CarrierLost, Lost
		}
		s.mu.Lock()
		if len(s.events) == 1 {
			if e := s.events[0]; e.Source != Fentry || e.At != h.at || e.Latency <= 0 || e.Latency > limit {
				t.Errorf("event %+v of hint %+v", e, h)
			}
		}
		s.mu.Unlock()
		s.mustTell(t, "after", kind)
		s.mustState(t, state)
		if len(s.w.doubts) != 0 {
			t.Errorf("doubts %+v", s.w.doubts)
		}
	}
}

func TestHintAfterTheState(t *testing.T) {
	s := mustStage(t)
	s.tap.carrier(t, false)
	s.w.takeHint(hint(s.dev, true), true)
	s.mustTell(t, "lost", CarrierLost)
	s.tap.carrier(t, true)
	s.w.takeHint(hint(s.dev, false), true)
	s.mustTell(t, "back", CarrierBack)
	s.mustState(t, Good)
}

// Looking ends: the bit was never set, or the carrier is back already.
func TestHintThatNothingConfirms(t *testing.T) {
	s := mustStage(t)
	for _, lost := range []bool{true, false} {
		s.tap.carrier(t, lost)
		s.w.check(s.dev.index, seen{})
		s.mu.Lock()
		s.events = nil
		s.mu.Unlock()
		s.w.takeHint(hint(s.dev, lost), true)
		looks := 1
		for ; len(s.w.doubts) > 0 && looks < 100; looks++ {
			s.w.lookAgain()
		}
		if looks != doubtLooks {
			t.Errorf("%d looks, want %d", looks, doubtLooks)
		}
		s.mustTell(t, "nothing happened")
	}
}

// The later hint is what counts.
func TestHintIsOvertaken(t *testing.T) {
	s := mustStage(t)
	s.w.takeHint(hint(s.dev, true), true)
	s.w.takeHint(hint(s.dev, false), true)
	if len(s.w.doubts) != 0 {
		t.Errorf("doubts %+v", s.w.doubts)
	}
	s.mustTell(t, "lost and back")
}

// A driver that takes its carrier down when it is set down means no loss.
func TestHintOfADeviceThatIsSetDown(t *testing.T) {
	s := mustStage(t)
	s.ip(t, "link set t0 down")
	s.w.takeHint(hint(s.dev, true), true)
	s.mustTell(t, "set down", AdminDown)
	s.mustState(t, Off)
	s.tap.remove()
	s.w.takeHint(hint(s.dev, true), true)
	s.mustTell(t, "removed", Removed)
	s.w.takeHint(hint(s.dev, true), true)
	s.w.takeHint(carrierEvent{index: -1, lost: true}, true)
	s.mustTell(t, "unknown")
}

// What a source has told is not told again by rtnetlink, whose messages are older
// than what is known.
func TestRtnetlinkTellsNothingTwice(t *testing.T) {
	s := mustStage(t)
	s.tap.carrier(t, false)
	s.w.takeHint(hint(s.dev, true), true)
	s.tap.carrier(t, true)
	s.w.takeHint(hint(s.dev, false), true)
	s.mustTell(t, "by the source", CarrierLost, CarrierBack)
	// A message of the loss that comes late.
	late := s.dev
	late.carrier = false
	s.w.rt.tell(func(n *news) { n.devices = []deviceNews{{device: late}} })
	if err := s.w.takeNews(); err != nil {
		t.Fatal(err)
	}
	s.w.rt.tell(func(n *news) { n.devices = []deviceNews{{device: s.dev, gone: true}} })
	if err := s.w.takeNews(); err != nil {
		t.Fatal(err)
	}
	s.mustTell(t, "by rtnetlink")
}

// Whatever was dropped, reading all finds what has changed.
func TestOverrunReadsAll(t *testing.T) {
	s := mustStage(t)
	s.tap.carrier(t, false)
	s.w.readAll()
	s.mustTell(t, "lost", CarrierLost)
	s.mustState(t, Lost)
	s.w.readAll()
	s.mustTell(t, "the same")
	s.tap.remove()
	s.w.readAll()
	s.mustTell(t, "removed", Removed)
	s.mustState(t, Off)
}

// The same with a real overrun of the netlink socket (ENOBUFS).
func TestNetlinkOverrun(t *testing.T) {
	s := mustStage(t)
	err := s.w.rt.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // the smallest buffer holds less
		s.ip(t, "address add 10.3.0.1/24 dev lo", "address delete 10.3.0.1/24 dev lo")
	}
	s.tap.remove()
	err = s.w.rt.raw.Control(func(fd uintptr) {
		for some := true; some; {
			if some, err = s.w.rt.drain(int(fd)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !s.w.rt.pending.all {
		t.Fatalf("no overrun: %+v", s.w.rt.pending)
	}
	if err := s.w.takeNews(); err != nil {
		t.Fatal(err)
	}
	s.mustTell(t, "removed", Removed)
	s.mustState(t, Off)
}

// When the kernel cannot be asked, that is said once, and all is read later.
func TestTheKernelCannotBeAsked(t *testing.T) {
	s := mustStage(t)
	var log strings.Builder
	s.w.log = slog.New(slog.NewTextHandler(&log, nil))
	works := s.w.kernel
	broken, err := openKernel()
	if err != nil {
		t.Fatal(err)
	}
	broken.close()
	broken.routes = works.routes
	s.w.kernel = broken
	s.tap.carrier(t, false)
	for range 3 {
		s.w.takeHint(hint(s.dev, true), true)
		s.w.startRound()
	}
	s.mustTell(t, "broken")
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
	s.mustState(t, Good)
	s.w.kernel = works
	s.w.startRound()
	s.mustTell(t, "works again", CarrierLost)
	s.mustState(t, Lost)
}

// Run takes hints, overruns and the end of a source.
func TestRunWithASource(t *testing.T) {
	n := mustNode(t)
	f := newFake()
	first, second := n.mustTap(t, "t0"), n.mustTap(t, "t1")
	n.ip(t, "link set t0 up", "link set t1 up", "address add 10.1.0.1/24 dev t1")
	t.Cleanup(n.startWith(t, Config{BPF: true}, f.open))
	if n.w.Source() != Fentry || len(n.w.Missing()) != 0 {
		t.Errorf("source %v, missing %+v", n.w.Source(), n.w.Missing())
	}
	peer := n.mustWatch(t, "10.1.0.5")[0]
	dev := n.mustDevice(t, "t1")

	// Within the throttle the hint is first; see TestCounterBeatsTheThrottle for why
	// it may take more than one round.
	inThrottle := func(what string, tell func(), wasFirst func(stamped) bool) {
		t.Helper()
		for range 5 {
			since := n.count()
			first.carrier(t, false)
			n.mustEvent(t, "t0", CarrierLost, since)
			at := second.carrier(t, false)
			tell()
			e := n.mustEvent(t, "t1", CarrierLost, since)
			t.Logf("%s: told by %v after %v", what, e.Source, time.Duration(e.delivered-at))
			n.mustPath(t, peer, Lost)
			first.carrier(t, true)
			second.carrier(t, true)
			n.mustEvent(t, "t0", CarrierBack, since)
			n.mustEvent(t, "t1", CarrierBack, since)
			n.mustPath(t, peer, Good)
			if wasFirst(e) {
				return
			}
		}
		t.Errorf("%s: never first", what)
	}
	inThrottle("hint", func() { f.hints <- hint(dev, true) }, func(e stamped) bool { return e.Source == Fentry })
	var at int64
	inThrottle("overrun", func() { at = int64(clock.Now()); f.overruns <- struct{}{} },
		func(e stamped) bool { return time.Duration(e.delivered-at) < 500*time.Millisecond })

	close(f.hints)
	agenttest.Eventually(t, limit, "the counter takes over", func() bool { return n.w.Source() == Counter })
	missing := n.w.Missing()
	if len(missing) != 1 || missing[0].Source != Fentry || missing[0].Err == nil || missing[0].Hint == "" {
		t.Errorf("missing %+v", missing)
	}
	inThrottle("counter", func() {}, func(e stamped) bool { return e.Source == Counter })
	if f.closed != 1 {
		t.Errorf("closed %d times", f.closed)
	}
}
