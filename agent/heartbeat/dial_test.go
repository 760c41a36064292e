// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// wantDialIn fails unless the machine asks to dial exactly then.
func (r *rig) wantDialIn(d time.Duration) {
	r.t.Helper()
	due := r.now.Add(d)
	if r.m.Next() != due && !Armed(r.m.State()) {
		r.t.Fatalf("next in %v, want %v", r.m.Next().Sub(r.now), d)
	}
	if d > 0 {
		r.at(due - 1)
		if r.out.Dial {
			r.t.Fatalf("dials before %v", d)
		}
	}
	r.at(due)
	if !r.out.Dial {
		r.t.Fatalf("does not dial after %v", d)
	}
}

func TestDialAtOnceAtTheStart(t *testing.T) {
	r := active(t)
	if r.m.Next() != r.now {
		t.Fatalf("next %v, want now", r.m.Next())
	}
	r.wantDialIn(0)
	r.wantState(wire.StateInit)
	r.tick()
	if r.out.Dial {
		t.Error("dials twice")
	}
}

func TestRetryAfterFailures(t *testing.T) {
	for name, fail := range map[string]func(r *rig){
		"refused dial": func(r *rig) { r.tick(); r.broken() },
		"refusal":      func(r *rig) { r.shake(); r.refuse() },
		"broken in the handshake": func(r *rig) {
			r.connect()
			r.broken()
		},
		"no answer": func(r *rig) {
			r.connect()
			r.run(epoch.Add(connectTimeout) - 1)
			r.wantState(wire.StateInit)
			r.at(epoch.Add(connectTimeout))
			if r.m.Why() != wire.ReasonNoAnswer || r.out.Close != CloseReset {
				t.Fatalf("why %v close %v", r.m.Why(), r.out.Close)
			}
		},
		"verdict": func(r *rig) { r.connect(); r.beat(); r.deadline() },
		"bye":     func(r *rig) { r.connect(); r.beat(); r.bye(wire.ByeRestart) },
	} {
		t.Run(name, func(t *testing.T) {
			r := active(t)
			fail(r)
			r.wantState(wire.StateDown)
			r.wantDialIn(connectInterval)
			r.wantState(wire.StateInit)
		})
		t.Run(name+", eager", func(t *testing.T) {
			r := active(t)
			r.m.SetEager(true)
			fail(r)
			r.wantDialIn(interval)
		})
	}
}

// A host that came back is found by a new dial sooner than by the next repetition
// of a lost SYN: connecting gets three seconds, what follows the whole attempt.
func TestConnectingGetsThreeSeconds(t *testing.T) {
	cfg := config(Active)
	cfg.Nonce = func() wire.ID { return wire.ID{1} }
	cfg.ConnectTimeout = 10 * time.Second
	var out Output
	m := NewActive(cfg, epoch)
	m.Tick(epoch, &out)
	m.Tick(epoch.Add(3*time.Second-1), &out)
	if m.State() != wire.StateInit {
		t.Fatalf("gave up connecting before three seconds: %v", m.Why())
	}
	m.Tick(epoch.Add(3*time.Second), &out)
	if m.State() != wire.StateDown || m.Why() != wire.ReasonNoAnswer {
		t.Errorf("after three seconds: %v (%v), want down (no answer)", m.State(), m.Why())
	}
	m = NewActive(cfg, epoch)
	m.Tick(epoch, &out)
	m.Connected(epoch.Add(time.Second), &out)
	if m.Next() != epoch.Add(10*time.Second) {
		t.Errorf("connected: next after %v, want the whole attempt", m.Next().Sub(epoch))
	}
}

func TestEagerTakesEffectAtOnce(t *testing.T) {
	r := armed(t, Active)
	r.deadline()
	r.m.SetEager(true) // by the owner, because of that very verdict
	if want := r.now.Add(interval); r.m.Next() != want {
		t.Errorf("next in %v, want an interval", r.m.Next().Sub(r.now))
	}
	r.m.SetEager(false)
	if want := r.now.Add(connectInterval); r.m.Next() != want {
		t.Errorf("next in %v, want the connect interval", r.m.Next().Sub(r.now))
	}
	fresh := active(t)
	fresh.m.SetEager(true)
	if fresh.m.Next() != fresh.now {
		t.Error("a new machine does not dial at once")
	}
	relation := armed(t, Active)
	relation.after(interval)
	relation.beat()
	relation.broken()
	relation.tick()
	relation.broken()
	next := relation.m.Next()
	relation.m.SetEager(true)
	if relation.m.Next() != next {
		t.Error("an armed relation's retry moved")
	}
}

func TestRefusalIsTold(t *testing.T) {
	r := active(t)
	r.shake()
	r.refuse()
	if r.out.Refused == nil || r.out.Refused.Code != wire.CodeFull || r.out.Refused.Limit != 8 {
		t.Errorf("refused %+v", r.out.Refused)
	}
	if r.m.Why() != wire.ReasonRefused {
		t.Errorf("why %v", r.m.Why())
	}
}

// A broken transport is no verdict for conmgr: the relation dials again at once,
// then every interval, and a new handshake in time ends the doubt.
func TestRelationSurvivesABrokenTransport(t *testing.T) {
	r := armed(t, Active, timers(interval, 2*time.Second))
	r.after(interval)
	r.beat()
	first, deadline := r.m.Session(), r.m.Deadline()
	r.after(10 * ms)
	r.broken()
	r.wantState(wire.StateLate)
	if r.m.Next() != r.now {
		t.Fatalf("next in %v, want now", r.m.Next().Sub(r.now))
	}
	r.tick()
	r.broken() // connection refused
	r.wantDialIn(interval)
	r.broken()
	r.after(interval - 1)
	r.now++
	r.connect()
	if f := r.frames[len(r.frames)-2]; f.Type != wire.TypeHello || f.Hello.Resumes != first || f.Seq != 1 {
		t.Errorf("HELLO %+v %+v, want it to resume %x", f.Header, f.Hello, first)
	}
	r.wantState(wire.StateLate) // heard, but not proven both ways
	if r.m.Deadline() == deadline {
		t.Error("the WELCOME did not move the deadline")
	}
	r.beat()
	r.wantState(wire.StateUp)
	r.wantNoVerdict()
}

// Each attempt of a relation is bounded too, and the end of one is no verdict.
func TestRelationOutlivesAnUnansweredAttempt(t *testing.T) {
	r := armed(t, Active, timers(interval, 10*time.Second))
	r.after(interval)
	r.beat()
	deadline := r.m.Deadline()
	r.broken()
	r.shake()
	r.run(r.now.Add(connectTimeout) - 1)
	if r.m.link != linkShaking {
		t.Fatal("gave up too early")
	}
	r.at(r.now + 1)
	if r.out.Close != CloseReset || r.m.Deadline() != deadline {
		t.Errorf("close %v deadline %v, want reset and %v", r.out.Close, r.m.Deadline(), deadline)
	}
	r.wantDialIn(interval)
	r.run(deadline - 1)
	r.wantNoVerdict()
	r.at(deadline)
	r.wantVerdict(wire.ReasonTimeout)
}

// A session that proves itself and is then reset by a sick peer again and again
// makes no more than one attempt per interval.
func TestHangUpsSetNoPace(t *testing.T) {
	r := armed(t, Active)
	dials := 0
	for end := r.now.Add(10 * interval); r.now.Before(end); {
		r.broken()
		r.at(max(r.now.Add(ms), r.m.Next()))
		if r.out.Dial {
			dials++
			r.do(func() { r.m.Connected(r.now, &r.out) })
			r.peer = 0
			r.welcome()
			r.beat()
		}
	}
	if dials > 11 {
		t.Errorf("%d dials in ten intervals", dials)
	}
	r.wantNoVerdict()
}

// The watchdog's end lives and dies with its transport.
func TestPassiveEndsWithItsTransport(t *testing.T) {
	r := armed(t, Passive)
	r.broken()
	r.wantVerdict(wire.ReasonDisconnect)
	if r.m.Next() != mono.Never {
		t.Errorf("next %v, want never", r.m.Next())
	}
	unarmed := passive(t)
	unarmed.broken()
	unarmed.wantState(wire.StateDown)
	unarmed.wantNoVerdict()
}

// The own kernel gave the transport up: that is silence, not a word of the peer.
func TestLostTransportIsSilence(t *testing.T) {
	r := armed(t, Passive)
	start := r.now
	r.after(10 * ms)
	r.lost()
	r.wantState(wire.StateLate)
	r.wantSent("")
	r.beat() // of a transport that is no more
	r.lost()
	r.broken()
	r.run(start.Add(timeout) - 1)
	r.wantNoVerdict()
	r.at(start.Add(timeout))
	if ch := r.wantVerdict(wire.ReasonTimeout); ch.LastValid != start || r.out.Close != CloseNone {
		t.Errorf("change %+v close %v", ch, r.out.Close)
	}
	r.wantSent("")
	if r.m.Next() != mono.Never {
		t.Errorf("next %v, want never", r.m.Next())
	}
	unarmed := passive(t)
	unarmed.lost()
	unarmed.wantState(wire.StateDown)
	unarmed.wantNoVerdict()
	relation := armed(t, Active)
	relation.after(interval)
	relation.lost()
	relation.wantState(wire.StateLate)
	relation.wantDialIn(0)
}

func TestHelloIsRepeatedOnDatagrams(t *testing.T) {
	datagram := func(c *Config) { c.Datagram = true }
	r := active(t, datagram)
	r.shake()
	r.wantSent("HELLO")
	nonce := r.out.Frames[0].Hello.Nonce
	for i := range 5 {
		r.after(interval/8 - 1)
		if len(r.frames) != i+1 {
			t.Fatalf("%d HELLOs, want %d", len(r.frames), i+1)
		}
		r.at(r.now + 1)
		r.wantSent("HELLO")
		if f := r.out.Frames[0]; f.Hello.Nonce != nonce || f.Seq != uint64(i+2) {
			t.Errorf("repetition %+v", f)
		}
	}
	r.welcome()
	r.beat()
	r.wantState(wire.StateUp)
	r.after(interval)
	for _, f := range r.frames[7:] {
		if f.Type == wire.TypeHello {
			t.Error("HELLO in an open session")
		}
	}
	stream := active(t)
	stream.shake()
	stream.after(connectTimeout - 1)
	if len(stream.frames) != 1 {
		t.Errorf("a stream carried %s", describeFrames(stream.frames))
	}
}

func TestHelloSaysWhatIsWanted(t *testing.T) {
	r := active(t, timers(1500*ms, 4*time.Second))
	r.shake()
	h := r.out.Frames[0].Hello
	want := wire.Hello{Conmgr: wire.ID{1}, Nonce: wire.ID{0xee, 1}, IntervalMS: 1500, TimeoutMS: 4000, Incarnation: 7}
	if h != want {
		t.Errorf("HELLO %+v, want %+v", h, want)
	}
	p := passive(t, timers(1500*ms, 4*time.Second))
	w := p.frames[0].Welcome
	if w.Echo != (wire.ID{0xee, 1}) || w.IntervalMS != 1500 || w.TimeoutMS != 4000 || w.Watchdog != (wire.ID{2}) || p.frames[0].Session != testSession {
		t.Errorf("WELCOME %+v", w)
	}
}

// A watchdog on datagrams that was restarted knows no session and can prove
// nothing. Its word makes a silent conmgr dial before the deadline, and no more.
func TestForgottenSession(t *testing.T) {
	datagram := func(c *Config) { c.Datagram, c.ConnectInterval = true, interval/2 }
	forgotten := func(r *rig, session, seq uint64) {
		f := wire.Frame{Header: wire.Header{Type: wire.TypeRefuse, Seq: 1}}
		f.Refuse = wire.Refuse{Code: wire.CodeSession, Echo: wire.EchoOf(&wire.Header{Session: session, Seq: seq})}
		r.receive(f)
	}
	r := armed(t, Active, datagram)
	deadline := r.m.Deadline()
	forgotten(r, testSession, r.m.seq-1)
	r.wantState(wire.StateUp)
	if r.out.Close != CloseNone || r.m.Stats().Invalid != 1 {
		t.Fatal("a session that hears its peer was given up")
	}
	r.after(interval * 5 / 4)
	r.wantState(wire.StateLate)
	for _, wrong := range [][2]uint64{{testSession + 1, r.m.seq - 1}, {testSession, r.m.seq}, {testSession, r.m.seq - 9}, {0, 0}} {
		if forgotten(r, wrong[0], wrong[1]); r.out.Close != CloseNone {
			t.Errorf("session %x, number %d: given up", wrong[0], wrong[1])
		}
	}
	forgotten(r, testSession, r.m.seq-1)
	if r.out.Close != CloseReset || r.m.Next() != r.now {
		t.Fatalf("close %v, next after %v: want a dial now", r.out.Close, r.m.Next().Sub(r.now))
	}
	r.wantState(wire.StateLate)
	if r.m.Deadline() != deadline {
		t.Errorf("the deadline moved by %v", r.m.Deadline().Sub(deadline))
	}
	stream := armed(t, Active)
	stream.after(interval * 5 / 4)
	if forgotten(stream, testSession, stream.m.seq-1); stream.out.Close != CloseNone {
		t.Error("given up on a stream, where a connection breaks instead")
	}
}
