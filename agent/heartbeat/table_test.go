// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	tablePath   = "testdata/transitions.txt"
	tableHeader = `What a machine does in every situation with every event. A situation is a
state and where the transport stands. Rows that are not here: nothing is sent
and nothing changes; such a frame counts as invalid (see TestNothingHappens).
`
)

// situation brings a fresh machine to where the events of the table strike it.
type situation struct {
	name  string
	role  Role
	state wire.State
	make  func(t testing.TB) *rig
}

// doubt returns how to make an armed machine late or suspect.
func doubt(to wire.State) func(r *rig) {
	if to == wire.StateSuspect {
		return func(r *rig) { r.paused(timeout) }
	}
	return func(r *rig) { r.at(r.m.lateAt) }
}

func situations() []situation {
	list := []situation{
		{"new", Active, wire.StateDown, func(t testing.TB) *rig { return active(t) }},
		{"down", Active, wire.StateDown, func(t testing.TB) *rig { r := active(t); r.tick(); r.broken(); return r }},
		{"init, dialing", Active, wire.StateInit, func(t testing.TB) *rig { r := active(t); r.tick(); return r }},
		{"init, shaking", Active, wire.StateInit, func(t testing.TB) *rig { r := active(t); r.shake(); return r }},
		{"init, open", Active, wire.StateInit, func(t testing.TB) *rig { r := active(t); r.connect(); return r }},
	}
	for _, s := range []wire.State{wire.StateLate, wire.StateSuspect} {
		list = append(list,
			situation{s.String() + ", broken", Active, s, func(t testing.TB) *rig { return brokenRig(t, s) }},
			situation{s.String() + ", dialing", Active, s, func(t testing.TB) *rig { r := brokenRig(t, s); r.tick(); return r }},
			situation{s.String() + ", shaking", Active, s, func(t testing.TB) *rig { r := brokenRig(t, s); r.shake(); return r }},
			situation{s.String() + ", unproven", Active, s, func(t testing.TB) *rig { r := brokenRig(t, s); r.connect(); return r }},
		)
	}
	list = append(list, situation{"init", Passive, wire.StateInit, func(t testing.TB) *rig { return passive(t) }})
	for _, s := range []wire.State{wire.StateLate, wire.StateSuspect} {
		list = append(list, situation{s.String() + ", transport lost", Passive, s, func(t testing.TB) *rig {
			r := armed(t, Passive)
			doubt(s)(r)
			r.lost()
			return r
		}})
	}
	for _, role := range []Role{Active, Passive} {
		list = append(list, situation{"up", role, wire.StateUp, func(t testing.TB) *rig { return armed(t, role) }})
		for _, s := range []wire.State{wire.StateLate, wire.StateSuspect} {
			list = append(list, situation{s.String(), role, s, func(t testing.TB) *rig {
				r := armed(t, role)
				doubt(s)(r)
				return r
			}})
		}
		list = append(list, situation{"stopped", role, wire.StateDown, func(t testing.TB) *rig {
			r := armed(t, role)
			r.do(func() { r.m.Stop(r.now, wire.ByeStop, &r.out) })
			return r
		}})
	}
	return list
}

// brokenRig is an armed relation in doubt whose transport has broken, ready to
// dial.
func brokenRig(t testing.TB, s wire.State) *rig {
	r := armed(t, Active)
	r.now = r.now.Add(interval)
	doubt(s)(r)
	r.broken()
	return r
}

// event is one thing that can happen to a machine. covers names the method or
// the frame type that it stands for.
type event struct {
	name   string
	covers string
	fire   func(r *rig)
}

func frameEvents() []event {
	ev := func(name string, typ wire.Type, edit func(r *rig, f *wire.Frame)) event {
		return event{name, typ.String(), func(r *rig) {
			f := r.next(typ)
			f.Beat = wire.Beat{State: wire.StateUp}
			edit(r, &f)
			r.receive(f)
		}}
	}
	down := func(why wire.Reason) func(r *rig, f *wire.Frame) {
		return func(r *rig, f *wire.Frame) { f.Beat = wire.Beat{State: wire.StateDown, Reason: why} }
	}
	list := []event{
		ev("HELLO again", wire.TypeHello, func(r *rig, f *wire.Frame) { f.Session, f.Hello.Nonce = 0, wire.ID{0xee, 1} }),
		ev("HELLO with another nonce", wire.TypeHello, func(r *rig, f *wire.Frame) { f.Session, f.Hello.Nonce = 0, wire.ID{0xbb} }),
		ev("WELCOME", wire.TypeWelcome, func(r *rig, f *wire.Frame) { f.Welcome.Echo = r.nonce() }),
		ev("WELCOME to another nonce", wire.TypeWelcome, func(r *rig, f *wire.Frame) { f.Welcome.Echo = wire.ID{0xbb} }),
		ev("WELCOME, sessions ended", wire.TypeWelcome, func(r *rig, f *wire.Frame) { f.Flags, f.Welcome.Echo = wire.FlagEnded, r.nonce() }),
		ev("WELCOME with session 0", wire.TypeWelcome, func(r *rig, f *wire.Frame) { f.Session, f.Welcome.Echo = 0, r.nonce() }),
		ev("REFUSE", wire.TypeRefuse, func(r *rig, f *wire.Frame) { f.Session, f.Refuse.Echo = 0, r.nonce() }),
		ev("REFUSE of another nonce", wire.TypeRefuse, func(r *rig, f *wire.Frame) { f.Session, f.Refuse.Echo = 0, wire.ID{0xbb} }),
		ev("COOKIE", wire.TypeCookie, func(r *rig, f *wire.Frame) { f.Session, f.Cookie.Echo = 0, r.nonce() }),
		ev("REGISTER", wire.TypeRegister, func(*rig, *wire.Frame) {}),
		ev("BEAT that acks our BEAT", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Beat.Ack = r.m.seq - 1 }),
		ev("BEAT that acks our first frame", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Beat.Ack = 1 }),
		ev("BEAT that acks nothing", wire.TypeBeat, func(*rig, *wire.Frame) {}),
		ev("BEAT that acks the unsent", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Beat.Ack = r.m.seq }),
		ev("BEAT probe", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Flags, f.Beat.Ack = wire.FlagProbe, r.m.seq-1 }),
		ev("BEAT stale", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Seq, f.Beat.Ack = r.m.heardSeq, r.m.seq-1 }),
		ev("BEAT of another session", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Session, f.Beat.Ack = 5, r.m.seq-1 }),
		ev("BEAT down, timeout", wire.TypeBeat, down(wire.ReasonTimeout)),
		ev("BEAT down, replaced", wire.TypeBeat, down(wire.ReasonReplaced)),
		ev("BEAT down, stale", wire.TypeBeat, func(r *rig, f *wire.Frame) { f.Seq = r.m.heardSeq; f.Beat.State = wire.StateDown }),
		ev("BYE stale", wire.TypeBye, func(r *rig, f *wire.Frame) { f.Seq = r.m.heardSeq }),
		ev("BYE of another session", wire.TypeBye, func(r *rig, f *wire.Frame) { f.Session = 5 }),
	}
	for _, kind := range []wire.ByeKind{wire.ByeStop, wire.ByeRestart, wire.ByeShutdown, wire.ByeLeave} {
		list = append(list, ev("BYE "+kind.Reason().String(), wire.TypeBye, func(r *rig, f *wire.Frame) { f.Bye.Kind = kind }))
	}
	return list
}

func callEvents() []event {
	list := []event{
		{"retry or attempt is due", "Tick", func(r *rig) {
			due := r.m.attemptUntil
			if r.m.link == linkNone {
				due = mono.Never
				if r.m.dialer != nil {
					due = r.m.retryAt
				}
			}
			if due != mono.Never { // else there is no such timer
				r.at(max(r.now, due))
			}
		}},
		{"1.25 intervals", "Tick", func(r *rig) { r.now = r.now.Add(interval + interval/4); r.m.nextBeat = r.now + 1; r.tick() }},
		{"deadline", "Tick", func(r *rig) {
			if Armed(r.m.State()) {
				r.at(r.m.Deadline())
			}
		}},
		{"Tick now", "Tick", func(r *rig) { r.tick() }},
		{"Connected", "Connected", func(r *rig) { r.do(func() { r.m.Connected(r.now, &r.out) }) }},
		{"Broken", "Broken", func(r *rig) { r.broken() }},
		{"Lost", "Lost", func(r *rig) { r.lost() }},
		{"Signal", "Signal", func(r *rig) { r.do(func() { r.m.Signal(r.now, wire.FlagSeek, &r.out) }) }},
		{"Replace", "Replace", func(r *rig) { r.do(func() { r.m.Replace(r.now, &r.out) }) }},
		{"Paused, a quarter", "Paused", func(r *rig) { r.paused(timeout / 4) }},
		{"Paused, more", "Paused", func(r *rig) { r.paused(timeout/4 + 1) }},
		{"LinkLost", "LinkLost", func(r *rig) { r.linkLost(interval) }},
		{"LinkLost, twice", "LinkLost", func(r *rig) { r.linkLost(interval); r.linkLost(timeout) }},
		{"LinkLost, LinkBack", "LinkBack", func(r *rig) { r.linkLost(0); r.linkBack() }},
		{"LinkBack", "LinkBack", func(r *rig) { r.linkBack() }},
		{"LinkLost, grace is over", "Tick", func(r *rig) {
			r.linkLost(interval)
			if Armed(r.m.State()) {
				r.at(r.now.Add(interval))
			}
		}},
		{"LinkLost, pause", "Paused", func(r *rig) { r.linkLost(interval); r.paused(timeout) }},
		{"Push", "Push", func(r *rig) { r.do(func() { r.m.Push(r.now, &r.out) }) }},
		{"Hold", "Hold", func(r *rig) { r.hold() }},
		{"SetEager", "SetEager", func(r *rig) { r.do(func() { r.m.SetEager(true) }) }},
	}
	for _, kind := range []wire.ByeKind{wire.ByeStop, wire.ByeRestart, wire.ByeShutdown, wire.ByeLeave} {
		list = append(list, event{"Stop " + kind.Reason().String(), "Stop", func(r *rig) {
			r.do(func() { r.m.Stop(r.now, kind, &r.out) })
		}})
	}
	return list
}

func events() []event { return append(frameEvents(), callEvents()...) }

// meaningless tells of calls that the role does not have.
func meaningless(s situation, e event) bool {
	switch e.covers {
	case "Connected", "SetEager", "Signal":
		return s.role == Passive
	case "Replace", "Hold", "Push":
		return s.role == Active
	}
	return false
}

// outcome is what an event did, as text, and whether it did anything.
func outcome(r *rig, before Machine) (string, bool) {
	var did []string
	for _, c := range r.out.Changes {
		verdict := ""
		if c.Verdict() {
			verdict = " VERDICT"
		}
		did = append(did, fmt.Sprintf("%v -> %v (%v)%s", c.From, c.To, c.Reason, verdict))
	}
	if s := r.sent(); s != "" {
		did = append(did, "send "+s)
	}
	if r.out.Dial {
		did = append(did, "dial")
	}
	if r.out.Close != CloseNone {
		did = append(did, [...]string{"", "close", "reset"}[r.out.Close])
	}
	if r.out.Refused != nil {
		did = append(did, "tell the refusal")
	}
	if armed := Armed(before.state) && Armed(r.m.state); armed && r.m.verdictAt() != before.verdictAt() {
		moved := r.m.verdictAt().Sub(before.verdictAt())
		did = append(did, fmt.Sprintf("deadline %s", signed(moved)))
	}
	if r.m.cfg.Role == Active && r.m.link == linkNone && (before.link != linkNone || r.m.retryAt != before.retryAt) && !r.m.stopped {
		did = append(did, "dial in "+r.m.retryAt.Sub(r.now).String())
	}
	return strings.Join(did, "; "), len(did) > 0
}

// signed is a duration that tells its sign.
func signed(d time.Duration) string {
	if d < 0 {
		return d.String()
	}
	return "+" + d.String()
}

// transitions runs every event in every situation.
func transitions(t *testing.T, each func(s situation, e event, r *rig, before Machine)) {
	for _, s := range situations() {
		for _, e := range events() {
			if meaningless(s, e) {
				continue
			}
			r := s.make(t)
			if r.m.State() != s.state {
				t.Fatalf("situation %s %s is %v", roleName(s.role), s.name, r.m.State())
			}
			before := snapshot(r.m)
			r.out.Reset()
			e.fire(r)
			each(s, e, r, before)
		}
	}
}

func TestTransitionTable(t *testing.T) {
	var b strings.Builder
	b.WriteString(tableHeader)
	last := ""
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		text, any := outcome(r, before)
		if !any {
			return
		}
		if head := roleName(s.role) + " " + s.name; head != last {
			fmt.Fprintf(&b, "\n%s\n", head)
			last = head
		}
		fmt.Fprintf(&b, "  %-30s  %s\n", e.name, text)
	})
	compareGolden(t, tablePath, b.String())
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; -update rewrites it, but only commit that if you understand why (-want +got):\n%s", path, diff)
	}
}

// A frame that did nothing is counted, and the machine is as before.
func TestNothingHappens(t *testing.T) {
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		frame := strings.ToUpper(e.covers) == e.covers
		if frame && uint64(r.m.stats.Invalid-before.stats.Invalid)+r.m.stats.Received != before.stats.Received+1 {
			t.Errorf("%s, %s: the frame was not counted once", s.name, e.name)
		}
		if !frame || r.m.stats.Invalid == before.stats.Invalid {
			return
		}
		before.stats = r.m.stats
		after := *r.m
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s %s, %s: an invalid frame changed the machine\n%+v\n%+v", roleName(s.role), s.name, e.name, before, after)
		}
		if text, any := outcome(r, before); any {
			t.Errorf("%s %s, %s: an invalid frame did something: %s", roleName(s.role), s.name, e.name, text)
		}
	})
}

// The table is complete: a new state, frame type, method or reason cannot come
// without rows.
func TestTableComplete(t *testing.T) {
	states := map[string]bool{}
	for _, s := range situations() {
		states[fmt.Sprint(s.role, s.state)] = true
	}
	for s := wire.State(0); s.String() != "unknown"; s++ {
		for _, role := range []Role{Active, Passive} {
			if !states[fmt.Sprint(role, s)] {
				t.Errorf("%s: no situation in state %v", roleName(role), s)
			}
		}
	}
	covered := map[string]bool{"Receive": true}
	for _, e := range events() {
		covered[e.covers] = true
	}
	for typ := wire.Type(1); typ.String() != "?"; typ++ {
		if !covered[typ.String()] {
			t.Errorf("no event for frame %v", typ)
		}
	}
	readers := []string{"Signals", "State", "Why", "Session", "LastValid", "Deadline", "Instance", "Stats", "Next", "Nonce", "Config", "Dying", "Held", "SetKey"}
	for i, typ := 0, reflect.TypeFor[*Machine](); i < typ.NumMethod(); i++ {
		if name := typ.Method(i).Name; !covered[name] && !slices.Contains(readers, name) {
			t.Errorf("no event for method %s", name)
		}
	}
}

// docArrow is one line of the list of arrows in the package comment.
var docArrow = regexp.MustCompile(`(?m)^//\t(\w+) -> (\w+) (!?) +(\w[^\n]*)$`)

// The list of arrows in the package comment is what the machine does, no more
// and no less.
func TestDrawingAgrees(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]bool{}
	for _, m := range docArrow.FindAllStringSubmatch(string(doc), -1) {
		for _, why := range strings.Split(m[4], ", ") {
			drawn[fmt.Sprintf("%s -> %s %s %s", strings.ToLower(m[1]), strings.ToLower(m[2]), m[3], why)] = true
		}
	}
	done := map[string]bool{}
	transitions(t, func(s situation, e event, r *rig, before Machine) {
		for _, c := range r.out.Changes {
			mark := map[bool]string{true: "!"}[c.Verdict()]
			done[fmt.Sprintf("%v -> %v %s %v", c.From, c.To, mark, arrowReason(c))] = true
		}
	})
	want, got := slices.Sorted(maps.Keys(done)), slices.Sorted(maps.Keys(drawn))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the package comment draws other arrows (-machine +drawn):\n%s", diff)
	}
}

// arrowReason folds the four kinds of BYE and of the own leaving.
func arrowReason(c Change) string {
	bye := c.Reason >= wire.ReasonStop && c.Reason <= wire.ReasonLeave
	switch {
	case c.Own && bye:
		return "own stop"
	case bye:
		return "bye"
	}
	return c.Reason.String()
}
