// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const ms = time.Millisecond

// The timers of most tests, and the instant at which they begin.
const (
	interval        = 100 * ms
	timeout         = 500 * ms
	connectInterval = 3 * time.Second
	connectTimeout  = 2 * time.Second
	epoch           = mono.Instant(1_000_000 * ms)
)

const testSession = 0xabc

// rig is one machine with a peer that the test plays.
type rig struct {
	t    testing.TB
	m    *Machine
	out  Output // of the last call
	now  mono.Instant
	peer uint64 // the peer's last sequence number
	inst wire.Instance

	frames []wire.Frame // all that were sent
	log    []Change     // all changes
	nonces byte
}

func config(role Role) Config {
	return Config{
		Role: role, Interval: interval, Timeout: timeout,
		ConnectInterval: connectInterval, ConnectTimeout: connectTimeout,
		Self: wire.ID{byte(role) + 1}, Incarnation: 7,
	}
}

// active returns an Active machine that has done nothing yet.
func active(t testing.TB, edit ...func(*Config)) *rig {
	r := &rig{t: t, now: epoch}
	cfg := config(Active)
	cfg.Nonce = func() wire.ID { r.nonces++; return wire.ID{0xee, r.nonces} }
	for _, e := range edit {
		e(&cfg)
	}
	r.m = NewActive(cfg, r.now)
	return r
}

// passive returns a Passive machine that a HELLO has just made.
func passive(t testing.TB, edit ...func(*Config)) *rig {
	r := &rig{t: t, now: epoch, peer: 1, inst: wire.Instance{Attribute: wire.AttributePrimary, Port: 5432}}
	cfg := config(Passive)
	cfg.Instance = &r.inst
	for _, e := range edit {
		e(&cfg)
	}
	hello := r.helloFrame()
	r.do(func() { r.m = NewPassive(&cfg, Opening{Session: testSession}, &hello, r.now, &r.out) })
	return r
}

func (r *rig) helloFrame() wire.Frame {
	return wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: r.peer}, Hello: wire.Hello{Nonce: wire.ID{0xee, 1}}}
}

// armed returns a machine of that role right after it was armed; every timer
// counts from rig.now.
func armed(t testing.TB, role Role, edit ...func(*Config)) *rig {
	if role == Passive {
		r := passive(t, edit...)
		r.beat()
		return r
	}
	r := active(t, edit...)
	r.connect()
	r.beat()
	return r
}

// bothRoles runs the test for an armed machine of each role.
func bothRoles(t *testing.T, test func(t *testing.T, r *rig), edit ...func(*Config)) {
	for _, role := range []Role{Active, Passive} {
		t.Run(roleName(role), func(t *testing.T) {
			t.Parallel()
			test(t, armed(t, role, edit...))
		})
	}
}

func roleName(role Role) string {
	if role == Active {
		return "active"
	}
	return "passive"
}

func timers(i, to time.Duration) func(*Config) {
	return func(c *Config) { c.Interval, c.Timeout = i, to }
}

// do makes one call and keeps what it gave.
func (r *rig) do(call func()) {
	r.out.Reset()
	call()
	r.frames = append(r.frames, r.out.Frames...)
	r.log = append(r.log, r.out.Changes...)
}

func (r *rig) tick()     { r.do(func() { r.m.Tick(r.now, &r.out) }) }
func (r *rig) broken()   { r.do(func() { r.m.Broken(r.now, &r.out) }) }
func (r *rig) lost()     { r.do(func() { r.m.Lost(r.now, &r.out) }) }
func (r *rig) hold()     { r.do(func() { r.m.Hold(r.now, &r.out) }) }
func (r *rig) deadline() { r.at(r.m.Deadline()) }

func (r *rig) paused(late time.Duration) { r.do(func() { r.m.Paused(r.now, late, &r.out) }) }

// linkLost and linkBack are hints of the kernel.
func (r *rig) linkLost(grace time.Duration) {
	r.do(func() { r.m.LinkLost(r.now, grace, &r.out) })
}
func (r *rig) linkBack() { r.do(func() { r.m.LinkBack(r.now, &r.out) }) }

// at moves the clock to the instant and ticks there once.
func (r *rig) at(i mono.Instant) {
	r.now = i
	r.tick()
}

// run ticks the machine whenever it asks for it, until the clock is at end.
func (r *rig) run(end mono.Instant) {
	r.t.Helper()
	for steps := 0; !r.m.Next().After(end); steps++ {
		if steps > 100_000 {
			r.t.Fatalf("does not come to rest at %v: next %v", r.now, r.m.Next())
		}
		r.at(max(r.now, r.m.Next()))
	}
	r.now = end
}

func (r *rig) after(d time.Duration) { r.t.Helper(); r.run(r.now.Add(d)) }

// receive hands a frame over.
func (r *rig) receive(f wire.Frame) {
	r.do(func() { r.m.Receive(r.now, &f, &r.out) })
}

// nonce is that of the last HELLO.
func (r *rig) nonce() wire.ID {
	if r.m.shake == nil {
		return r.helloFrame().Hello.Nonce
	}
	return r.m.shake.nonce
}

// snapshot copies a machine with what it points to.
func snapshot(m *Machine) Machine {
	s := *m
	if m.shake != nil {
		s.shake = new(*m.shake)
	}
	if m.dialer != nil {
		s.dialer = new(*m.dialer)
	}
	return s
}

// next returns a frame of the peer in the present session.
func (r *rig) next(typ wire.Type) wire.Frame {
	r.peer++
	return wire.Frame{Header: wire.Header{Type: typ, Session: testSession, Seq: r.peer}}
}

// beatFrame returns a beat that acknowledges everything sent.
func (r *rig) beatFrame() wire.Frame {
	f := r.next(wire.TypeBeat)
	f.Beat.State, f.Beat.Ack = wire.StateUp, r.m.seq-1
	return f
}

func (r *rig) beat() { r.receive(r.beatFrame()) }

func (r *rig) probe() {
	f := r.beatFrame()
	f.Flags = wire.FlagProbe
	r.receive(f)
}

func (r *rig) peerDown(why wire.Reason) {
	f := r.beatFrame()
	f.Beat.State, f.Beat.Reason = wire.StateDown, why
	r.receive(f)
}

func (r *rig) bye(kind wire.ByeKind) {
	f := r.next(wire.TypeBye)
	f.Bye.Kind = kind
	r.receive(f)
}

func (r *rig) welcome() {
	f := r.next(wire.TypeWelcome)
	f.Welcome.Echo = r.nonce()
	r.receive(f)
}

func (r *rig) refuse() {
	f := wire.Frame{Header: wire.Header{Type: wire.TypeRefuse}}
	f.Refuse = wire.Refuse{Code: wire.CodeFull, Limit: 8, Echo: r.nonce()}
	r.receive(f)
}

// connect takes an Active machine that wants to dial to an open, unproven session.
func (r *rig) connect() {
	r.shake()
	r.welcome()
}

func (r *rig) shake() {
	r.tick()
	if !r.out.Dial {
		r.t.Fatal("does not dial")
	}
	r.do(func() { r.m.Connected(r.now, &r.out) })
	r.peer = 0
}

func (r *rig) wantState(want wire.State) {
	r.t.Helper()
	if got := r.m.State(); got != want {
		r.t.Fatalf("state %v, want %v (why %v)", got, want, r.m.Why())
	}
}

// wantVerdict fails unless the last call gave exactly this verdict.
func (r *rig) wantVerdict(want wire.Reason) Change {
	r.t.Helper()
	var got []Change
	for _, c := range r.out.Changes {
		if c.Verdict() {
			got = append(got, c)
		}
	}
	if len(got) != 1 || got[0].Reason != want {
		r.t.Fatalf("verdicts %+v, want one of %v", got, want)
	}
	return got[0]
}

func (r *rig) wantNoVerdict() {
	r.t.Helper()
	for _, c := range r.log {
		if c.Verdict() {
			r.t.Fatalf("a verdict: %+v", c)
		}
	}
}

// sent describes the frames of the last call.
func (r *rig) sent() string { return describeFrames(r.out.Frames) }

func (r *rig) wantSent(want string) {
	r.t.Helper()
	if got := r.sent(); got != want {
		r.t.Fatalf("sent %q, want %q", got, want)
	}
}

func describeFrames(frames []wire.Frame) string {
	var parts []string
	for _, f := range frames {
		s := f.Type.String()
		if f.Type == wire.TypeBeat {
			s += "(" + f.Beat.State.String()
			for _, flag := range []struct {
				bit  wire.Flags
				name string
			}{{wire.FlagProbe, "probe"}, {wire.FlagAnswer, "answer"}, {wire.FlagState, "instance"}} {
				if f.Flags&flag.bit != 0 {
					s += " " + flag.name
				}
			}
			s += ")"
		}
		if f.Type == wire.TypeBye {
			s += fmt.Sprintf("(%v)", f.Bye.Kind.Reason())
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}
