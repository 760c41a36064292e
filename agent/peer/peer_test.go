// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// recorder is a Handler and an Acceptor that writes down what it is told.
type recorder struct {
	mu      sync.Mutex
	changes []heartbeat.Change
	lives   []mono.Instant // the kernel's, one per change
	told    []wire.Instance
	refused []wire.Refuse
	broken  []error
	turned  []error
	hinted  []wire.Refuse
	admit   func(*wire.Hello, Counts) Admission
}

func (r *recorder) Changed(s *Session, c heartbeat.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lives = append(r.lives, s.KernelLife())
	r.changes = append(r.changes, c)
}

func (r *recorder) Told(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, s.Machine().Instance())
}

func (r *recorder) Refused(_ *Session, f wire.Refuse, proven bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !proven {
		r.hinted = append(r.hinted, f)
		return
	}
	r.refused = append(r.refused, f)
}

func (r *recorder) Broken(_ *Session, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = append(r.broken, err)
}

func (r *recorder) TurnedAway(_ netip.AddrPort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turned = append(r.turned, err)
}

func (r *recorder) Admit(_ netip.AddrPort, h *wire.Hello, _ bool, c Counts) Admission {
	if r.admit == nil {
		return Admission{}
	}
	return r.admit(h, c)
}

// saw reports whether the last change is to the state for the reason, and
// returns it.
func (r *recorder) saw(to wire.State, why wire.Reason) (heartbeat.Change, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.changes {
		if c.To == to && c.Reason == why {
			return c, true
		}
	}
	return heartbeat.Change{}, false
}

func (r *recorder) count(to wire.State) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.changes {
		if c.To == to {
			n++
		}
	}
	return n
}

const (
	testInterval = 50 * time.Millisecond
	testTimeout  = 1500 * time.Millisecond // more than a busy machine stands still
)

func activeConfig(id byte) heartbeat.Config {
	var n byte
	return heartbeat.Config{
		Interval: testInterval, Timeout: testTimeout,
		ConnectInterval: 50 * time.Millisecond, ConnectTimeout: 2 * time.Second,
		Self: wire.ID{id}, Nonce: func() wire.ID { n++; return wire.ID{id, n} },
	}
}

// serve starts a watchdog end on a loopback port.
func serve(t *testing.T, l *Loop, r *recorder) (*Listener, netip.AddrPort) {
	t.Helper()
	type result struct {
		ln  *Listener
		err error
	}
	var next uint64
	res := on(l, func() result {
		ln := l.Listen(ListenConfig{
			Self: wire.ID{9}, HandshakeTimeout: 2 * time.Second, HalfOpen: 8,
			NewSession: func() uint64 { next++; return next },
		}, r)
		return result{ln, ln.Add(netip.MustParseAddrPort("127.0.0.1:0"))}
	})
	if res.err != nil {
		t.Fatal(res.err)
	}
	return res.ln, res.ln.Addrs()[0]
}

func dial(l *Loop, addr netip.AddrPort, id byte, r *recorder) *Session {
	return on(l, func() *Session { return l.Dial(DialConfig{Heartbeat: activeConfig(id)}, addr, r) })
}

func TestSessionArmsAndCarriesState(t *testing.T) {
	l := startLoop(t)
	var dog, man recorder
	ln, addr := serve(t, l, &dog)
	state := wire.Instance{Attribute: wire.AttributeStandby, Status: wire.StatusUp, SystemID: 7, Generation: 1}
	l.Do(func() { ln.SetInstance(state) })
	s := dial(l, addr, 1, &man)
	eventually(t, "both ends armed", func() bool {
		_, a := man.saw(wire.StateUp, wire.ReasonArmed)
		_, b := dog.saw(wire.StateUp, wire.ReasonArmed)
		return a && b
	})
	promoted := state
	promoted.Attribute, promoted.Generation = wire.AttributePrimary, 2
	l.Do(func() { ln.SetInstance(promoted) })
	l.Do(func() { s.Signal(wire.FlagSeek) })
	eventually(t, "the signal", func() bool {
		return on(l, func() bool {
			for s := range ln.Sessions() {
				return s.Machine().Signals() == wire.FlagSeek
			}
			return false
		})
	})
	eventually(t, "the pushed state", func() bool {
		man.mu.Lock()
		defer man.mu.Unlock()
		return len(man.told) > 0 && man.told[len(man.told)-1] == promoted
	})
}

func TestSilenceIsJudgedOnTime(t *testing.T) {
	// The watchdog end runs on a loop of its own, which is then held: its
	// kernel still acknowledges, its process is silent.
	dogLoop, manLoop := startLoop(t), startLoop(t)
	var dog, man recorder
	_, addr := serve(t, dogLoop, &dog)
	s := dial(manLoop, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })

	release := make(chan struct{})
	dogLoop.Do(func() { <-release })
	eventually(t, "the verdict", func() bool { _, ok := man.saw(wire.StateDown, wire.ReasonTimeout); return ok })
	life := on(manLoop, s.KernelLife)
	close(release)

	c, _ := man.saw(wire.StateDown, wire.ReasonTimeout)
	if c.Silence < testTimeout {
		t.Errorf("verdict after %v of silence, want at least %v", c.Silence, testTimeout)
	}
	if !life.After(c.LastValid) {
		t.Errorf("kernel heard at %d, want after the last frame at %d: the host lives", life, c.LastValid)
	}
	eventually(t, "the held loop knows it", func() bool { return on(dogLoop, dogLoop.Stats).Stalls > 0 })
	eventually(t, "a new session", func() bool { return man.count(wire.StateUp) >= 2 })
	// The held end was told or cut off while it stood still itself: whatever
	// ended its session, it must not blame the client alone.
	dog.mu.Lock()
	defer dog.mu.Unlock()
	for _, c := range dog.changes {
		if c.Verdict() && c.Reason != wire.ReasonReplaced && !c.OwnPause {
			t.Errorf("verdict %v without the mark of the own pause", c)
		}
	}
}

func TestTellsDownBeforeReset(t *testing.T) {
	// A conmgr that heard nothing gives up: its watchdog hears "down", not only
	// a broken connection. The watchdog's frames are swallowed by a proxy.
	l := startLoop(t)
	var dog, man recorder
	_, addr := serve(t, l, &dog)
	proxy := newProxy(t, addr)
	dial(l, proxy.addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := dog.saw(wire.StateUp, wire.ReasonArmed); return ok })
	proxy.deafen()
	eventually(t, "the told end", func() bool { _, ok := dog.saw(wire.StateDown, wire.ReasonPeerDown); return ok })
}

func TestAgentRestartIsNoVerdict(t *testing.T) {
	manLoop, dogLoop := startLoop(t), startLoop(t)
	var dog, man recorder
	ln, addr := serve(t, dogLoop, &dog)
	dial(manLoop, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })

	// Sockets closed without a word, as the kernel does for a killed process.
	err := on(dogLoop, func() error {
		for _, s := range ln.byID {
			s.transport.close(true)
			s.transport = nil
		}
		for _, k := range ln.socks {
			dogLoop.closeFD(k.fd)
		}
		ln.socks = nil
		return ln.Add(addr)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "late by disconnect", func() bool { _, ok := man.saw(wire.StateLate, wire.ReasonDisconnect); return ok })
	eventually(t, "heard again", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonHeard); return ok })
	if n := man.count(wire.StateDown); n != 0 {
		t.Errorf("%d verdicts, want none", n)
	}
}

func TestRefusalIsTold(t *testing.T) {
	l := startLoop(t)
	var man recorder
	dog := recorder{admit: func(*wire.Hello, Counts) Admission {
		return Admission{Code: wire.CodeFull, Limit: 3}
	}}
	_, addr := serve(t, l, &dog)
	dial(l, addr, 1, &man)
	eventually(t, "the refusal", func() bool {
		man.mu.Lock()
		defer man.mu.Unlock()
		return len(man.refused) > 0 && man.refused[0].Code == wire.CodeFull && man.refused[0].Limit == 3
	})
	if n := dog.count(wire.StateUp); n != 0 {
		t.Errorf("%d sessions armed, want none", n)
	}
}

func TestByeIsHeard(t *testing.T) {
	l := startLoop(t)
	var dog, man recorder
	_, addr := serve(t, l, &dog)
	s := dial(l, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := dog.saw(wire.StateUp, wire.ReasonArmed); return ok })
	l.Do(func() { s.Stop(wire.ByeLeave) })
	eventually(t, "the BYE", func() bool { _, ok := dog.saw(wire.StateDown, wire.ReasonLeave); return ok })
}

func TestNewerSessionReplacesOlder(t *testing.T) {
	l := startLoop(t)
	var dog, first, second recorder
	ln, addr := serve(t, l, &dog)
	s := dial(l, addr, 1, &first)
	eventually(t, "the first armed", func() bool { _, ok := first.saw(wire.StateUp, wire.ReasonArmed); return ok })
	l.Do(func() { s.transport.(*stream).owner = mute{}; s.timer.Stop() }) // its host vanished
	dial(l, addr, 1, &second)
	eventually(t, "replaced", func() bool { _, ok := dog.saw(wire.StateDown, wire.ReasonReplaced); return ok })
	if n := on(l, func() int { return ln.armed }); n != 1 {
		t.Errorf("%d sessions armed, want 1", n)
	}
}

// mute is the owner of a connection whose host vanished.
type mute struct{}

func (mute) connected(transport)                         {}
func (mute) frame(transport, []byte, *wire.Frame, error) {}
func (mute) broken(transport, error)                     {}

func TestOtherVersionIsAnsweredAndTold(t *testing.T) {
	l := startLoop(t)
	var dog, man recorder
	_, addr := serve(t, l, &dog)

	// A client of a future version is refused with the version we speak.
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeHello}})
	hello[wire.PrefixSize+2] = 2
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := wire.Split(answer)
	var f wire.Frame
	if err != nil || wire.Parse(raw, &f) != nil || f.Type != wire.TypeRefuse || f.Refuse.Code != wire.CodeVersion || f.Refuse.Limit != 1 {
		t.Errorf("answer %x, want REFUSE with the version 1", answer)
	}

	// A watchdog of a future version is told to the handler.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go answerInVersion2(ln)
	dial(l, netip.MustParseAddrPort(ln.Addr().String()), 1, &man)
	eventually(t, "the version mismatch", func() bool {
		man.mu.Lock()
		defer man.mu.Unlock()
		return len(man.refused) > 0 && man.refused[0].Code == wire.CodeVersion
	})
}

func answerInVersion2(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		b := wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeWelcome}})
		b[wire.PrefixSize+2] = 2
		_, _ = conn.Write(b)
	}
}

func TestStrangersDoNotDisturb(t *testing.T) {
	l := startLoop(t)
	var dog, man recorder
	ln, addr := serve(t, l, &dog)
	dial(l, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })
	for _, junk := range [][]byte{
		[]byte("GET / HTTP/1.0\r\n\r\n"),
		make([]byte, 4096),
		{0, 40, 1, 2, 3},
		{255, 255, 0, 0},
		wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: 1, Seq: 99}}),
	} {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(junk); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	// More half-open connections than are kept: the oldest are closed.
	var idle []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
		t.Cleanup(func() { conn.Close() })
	}
	if _, err := idle[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest half-open connection is still open")
	}
	eventually(t, "the bound", func() bool { return on(l, func() int { return len(ln.half) }) <= 8 })
	if n := man.count(wire.StateDown); n != 0 {
		t.Errorf("the healthy session got %d verdicts", n)
	}
}

func TestReaderThatNeverReads(t *testing.T) {
	// Fill the socket of one session; the loop must go on for the other.
	l := startLoop(t)
	var dog, man recorder
	ln, addr := serve(t, l, &dog)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1},
		Hello: wire.Hello{Conmgr: wire.ID{5}, IntervalMS: 50, TimeoutMS: 600_000}}
	if _, err := conn.Write(wire.AppendPrefixed(nil, &hello)); err != nil {
		t.Fatal(err)
	}
	stuck := func() *Session {
		for _, s := range ln.byID {
			if s.conmgr == (wire.ID{5}) {
				return s
			}
		}
		return nil
	}
	eventually(t, "the session", func() bool { return on(l, stuck) != nil })
	frames := wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat}})
	eventually(t, "a full socket", func() bool {
		return on(l, func() bool {
			s := stuck()
			t := s.transport.(*stream)
			for range 1000 {
				t.send(frames, false)
			}
			return t.dropped > 1000 && len(t.pending) <= maxPending
		})
	})
	dial(l, addr, 1, &man)
	eventually(t, "the other session armed", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })
}

func TestFuseHoldsThenActs(t *testing.T) {
	dogLoop, manLoop := startLoop(t), startLoop(t)
	var dog recorder
	ln, addr := serve(t, dogLoop, &dog)
	men := make([]recorder, 4)
	sessions := make([]*Session, 4)
	for i := range men {
		sessions[i] = dial(manLoop, addr, byte(i+1), &men[i])
	}
	eventually(t, "all armed", func() bool { return dog.count(wire.StateUp) >= 4 })
	// All four hosts vanish at once: nothing comes any more, no connection breaks.
	manLoop.Do(func() {
		for _, s := range sessions {
			s.timer.Stop()
			s.transport.(*stream).owner = mute{}
		}
	})
	eventually(t, "the fuse holds four", func() bool { return on(dogLoop, func() bool { return ln.Census().Held == 4 }) })
	before := on(dogLoop, ln.Census)
	if before.ByState[wire.StateSuspect] != 4 || before.Frames.Received < 4 || before.Frames.Sent < 4 {
		t.Errorf("while it holds: %+v", before)
	}
	eventually(t, "four verdicts", func() bool { return dog.count(wire.StateDown) >= 4 })
	after := on(dogLoop, ln.Census)
	if after.Held != 0 || after.ByState != [wire.StateSuspect + 1]int{} || after.Frames.Received < before.Frames.Received || after.Frames.Sent <= before.Frames.Sent {
		t.Errorf("behind the verdicts: %+v, before %+v", after, before)
	}
	if st := on(dogLoop, dogLoop.Stats); st.Fuses == 0 || st.Fused.IsZero() {
		t.Errorf("loop: %+v", st)
	}
	dog.mu.Lock()
	defer dog.mu.Unlock()
	for _, c := range dog.changes {
		if c.To == wire.StateDown && c.Silence < 2*testTimeout {
			t.Errorf("verdict after %v, want it held to %v by the fuse", c.Silence, 2*testTimeout)
		}
	}
}

func TestOwnPauseAccusesNobody(t *testing.T) {
	dogLoop, manLoop := startLoop(t), startLoop(t)
	var dog, man recorder
	_, addr := serve(t, dogLoop, &dog)
	dial(manLoop, addr, 1, &man)
	eventually(t, "armed", func() bool { _, ok := man.saw(wire.StateUp, wire.ReasonArmed); return ok })
	// Hold conmgr's loop for half a timeout: the watchdog does not mind yet.
	start := clock.Now()
	manLoop.Do(func() {
		ts := unix.NsecToTimespec(int64(testTimeout * 6 / 10))
		for errors.Is(unix.Nanosleep(&ts, &ts), unix.EINTR) {
		}
	})
	eventually(t, "suspect by own pause, then up", func() bool {
		a, ok := man.saw(wire.StateSuspect, wire.ReasonOwnPause)
		b, back := man.saw(wire.StateUp, wire.ReasonHeard)
		return ok && back && a.At.After(start) && b.At.After(a.At)
	})
	if n := man.count(wire.StateDown); n != 0 {
		t.Errorf("%d verdicts, want none", n)
	}
}
