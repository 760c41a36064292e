// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// office is a server without an instance, whose control socket answers.
type office struct {
	*server
	t    *testing.T
	addr netip.AddrPort // heartbeats
	log  *agentLog
	end  func()
}

// agentLog is written by the agent and read by the test.
type agentLog struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (l *agentLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *agentLog) lines(with string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

// mustOffice runs a server in a state directory; end ends it before the test does.
func mustOffice(t *testing.T, state string) *office {
	t.Helper()
	log := new(agentLog)
	s, err := newServer(Options{State: state, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(log, nil)), Flags: []conf.Entry{
		{Name: "watchdog.clients", Value: "loopback"}, {Name: "watchdog.protect", Value: "192.0.2.1"},
		{Name: "watchdog.on_disconnect", Value: "terminate"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	c := s.openControl()
	if c == nil {
		t.Fatal("no control socket")
	}
	running.Go(func() { c.Run(ctx) })
	running.Go(func() { s.keeper.run(ctx) })
	running.Go(func() { s.links.Run(ctx) })
	running.Go(func() {
		if err := s.loop.Run(ctx); err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	end := sync.OnceFunc(func() {
		stop()
		running.Wait()
		s.keeper.close()
	})
	t.Cleanup(end)
	o := &office{server: s, t: t, log: log, end: end}
	s.onLoop(func() {
		if err := s.gate.listener.SetAddrs([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}); err != nil {
			t.Error(err)
		}
		o.addr = s.gate.listener.Addrs()[0]
	})
	return o
}

func (o *office) mustAsk(q control.Question) *control.Reply {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	defer cancel()
	r, err := control.Ask(ctx, o.options.State, q)
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

func (o *office) mustAskPause() {
	o.t.Helper()
	o.mustAsk(control.Question{Do: control.DoPause, ForMS: 600_000})
}

// mustConmgr opens a heartbeat session and returns how to break it.
func (o *office) mustConmgr(id byte) (vanish func()) {
	o.t.Helper()
	loop, err := peer.NewLoop(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	loop.Do(func() {
		loop.Dial(peer.DialConfig{Heartbeat: heartbeat.Config{
			Interval: 100 * time.Millisecond, Timeout: time.Minute,
			ConnectInterval: 10 * time.Millisecond, ConnectTimeout: time.Minute, Self: wire.ID{id}, Incarnation: 7,
		}}, o.addr, ignorant{})
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = loop.Run(ctx) })
	vanish = sync.OnceFunc(func() { stop(); running.Wait() })
	o.t.Cleanup(vanish)
	o.eventually("a session of conmgr "+string('0'+id), func(r *control.Reply) bool { return o.relation(r, id) == "armed" })
	return vanish
}

// ignorant does not care about its session.
type ignorant struct{}

func (ignorant) Changed(*peer.Session, heartbeat.Change)  {}
func (ignorant) Told(*peer.Session)                       {}
func (ignorant) Refused(*peer.Session, wire.Refuse, bool) {}
func (ignorant) Broken(*peer.Session, error)              {}

func (o *office) eventually(what string, is func(*control.Reply) bool) *control.Reply {
	o.t.Helper()
	var last *control.Reply
	agenttest.Eventually(o.t, time.Minute, what, func() bool {
		last = o.mustAsk(control.Question{Do: control.DoSessions})
		return is(last)
	})
	return last
}

// of returns what is told of a conmgr.
func of(r *control.Reply, id byte) *control.Session {
	conmgr := "0" + string('0'+id) + strings.Repeat("0", 30)
	i := slices.IndexFunc(r.Sessions, func(s control.Session) bool { return s.Conmgr == conmgr })
	if i < 0 {
		return nil
	}
	return &r.Sessions[i]
}

func (o *office) relation(r *control.Reply, id byte) string {
	if s := of(r, id); s != nil {
		return s.Relation
	}
	return ""
}

// kinds returns what the events tell of pauses and warrants, oldest first.
func (o *office) kinds() (kinds []string) {
	for _, e := range slices.Backward(o.keeper.events.Latest(100)) {
		kinds = append(kinds, strings.TrimSpace(e.Kind+" "+e.Outcome))
	}
	return kinds
}

// A session is told as it is, and goes on to be told when it has ended while the
// agent is not done with it.
func TestControlSessions(t *testing.T) {
	t.Parallel()
	o := mustOffice(t, t.TempDir())
	vanish := o.mustConmgr(3)
	r := o.eventually("a beat", func(r *control.Reply) bool { s := of(r, 3); return s.RTTMS > 0 && s.Received > 3 })
	s := of(r, 3)
	if s.Addr != netip.MustParseAddr("127.0.0.1") || s.Port == 0 || s.Transport != "tcp" || s.Key != "" || s.State != "up" ||
		s.IntervalMS != 100 || s.TimeoutMS != 60_000 || s.HeardMS == nil || *s.HeardMS > 60_000 || s.Generation != 1 ||
		s.Incarnation != 7 || s.Protected || s.Armed == nil || time.Since(*s.Armed) > time.Minute || s.Session == 0 {
		t.Errorf("%+v", s)
	}
	st := r.Status
	if st.Sessions.Up != 1 || st.Clients.Armed != 1 || st.Version != "1.2.3" || st.PID != os.Getpid() || st.Kills != "enabled" ||
		st.Sessions.Limit != 100 || st.Descriptors.Need != 164 || st.Descriptors.Open < 5 || st.Descriptors.Limit < 100 ||
		st.Instance.Status != "unknown" || st.Database.Monitor || st.Database.Terminator || st.Links.Source == "" || st.Sockets.Proven {
		t.Errorf("%+v", st)
	}
	o.mustAsk(control.Question{Do: control.DoPause, ForMS: 60_000})
	vanish()
	r = o.eventually("its end", func(r *control.Reply) bool { return o.relation(r, 3) == "suspended" })
	s = of(r, 3)
	if s.State != "down" || s.Case != "disconnect" || s.Reason != "disconnect" || s.SilentMS == nil || s.Port != 0 || s.LeftMS != nil {
		t.Errorf("%+v", s)
	}
	if st := r.Status; st.Sessions.Up != 0 || st.Clients.Armed != 0 || st.Clients.Suspended != 1 {
		t.Errorf("%+v", st)
	}
}

// While kills are paused a verdict is recorded and not carried out. When the pause is
// over, who is back is let alone, and who is still away gets one more timeout.
func TestPause(t *testing.T) {
	t.Parallel()
	o := mustOffice(t, t.TempDir())
	vanish1, vanish2 := o.mustConmgr(1), o.mustConmgr(2)
	r := o.mustAsk(control.Question{Do: control.DoPause, ForMS: 600_000, By: "alice", Reason: "new switch"})
	p := r.Status.Pause
	if r.Status.Kills != "paused" || p == nil || !strings.HasSuffix(p.By, " for alice") || p.Reason != "new switch" ||
		p.LeftMS > 600_000 || p.LeftMS < 540_000 || p.Until.Sub(p.Since) != 10*time.Minute {
		t.Errorf("%+v, %+v", r.Status, p)
	}
	agenttest.Eventually(t, time.Minute, "conmgrs are told", func() bool {
		o.monitor.mu.Lock()
		defer o.monitor.mu.Unlock()
		return o.monitor.paused
	})
	vanish1()
	vanish2()
	o.eventually("suspended", func(r *control.Reply) bool {
		return o.relation(r, 2) == "suspended" && (o.relation(r, 1) == "suspended" || o.relation(r, 1) == "spared")
	})
	o.mustConmgr(1)
	r = o.mustAsk(control.Question{Do: control.DoResume})
	if r.Status.Kills != "enabled" || r.Status.Pause != nil {
		t.Errorf("%+v", r.Status)
	}
	r = o.eventually("one more timeout", func(r *control.Reply) bool { return o.relation(r, 2) == "waiting" })
	if left := of(r, 2).LeftMS; o.relation(r, 1) != "armed" || left == nil || *left > 60_000 || *left < 30_000 {
		t.Errorf("%s, %v left", o.relation(r, 1), left)
	}
	want := []string{"kills paused", "warrant suspended paused", "client came back", "kills resumed", "waiting for comeback"}
	agenttest.Eventually(t, time.Minute, "records", func() bool { return isSubsequence(want, o.kinds()) })
	if slices.Contains(o.kinds(), "warrant written") {
		t.Error("a warrant was written")
	}
	if n := o.log.lines("kills paused"); n != 1 {
		t.Errorf("%d lines about the pause, want 1", n)
	}
	if _, err := os.Stat(filepath.Join(o.options.State, pauseFile)); err == nil {
		t.Error("the pause is still kept")
	}
}

func isSubsequence(want, in []string) bool {
	for _, s := range in {
		if len(want) > 0 && s == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// A pause goes on after a restart of the agent, to its end and no further.
func TestPauseSurvivesRestart(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	first := mustOffice(t, state)
	until := first.mustAsk(control.Question{Do: control.DoPause, ForMS: 600_000, By: "alice"}).Status.Pause.Until
	first.end()

	second := mustOffice(t, state)
	st := second.mustAsk(control.Question{Do: control.DoStatus}).Status
	if p := st.Pause; st.Kills != "paused" || !p.Until.Equal(until) || !strings.HasSuffix(p.By, " for alice") || p.LeftMS > 600_000 {
		t.Errorf("%+v, %+v", st, p)
	}
	if n := second.log.lines("kills paused"); n != 1 {
		t.Errorf("%d lines about the pause, want 1", n)
	}
	// A short one ends by itself.
	second.mustAsk(control.Question{Do: control.DoPause, ForMS: 20})
	second.eventually("its end", func(r *control.Reply) bool { return r.Status.Kills == "enabled" })
	agenttest.Eventually(t, time.Minute, "a record of the end", func() bool {
		e := second.keeper.events.Latest(1)
		return len(e) == 1 && e[0].Kind == "kills resumed" && e[0].By == "" && e[0].Reason == "the pause is over"
	})
	second.end()

	third := mustOffice(t, state)
	if st := third.mustAsk(control.Question{Do: control.DoStatus}).Status; st.Kills != "enabled" {
		t.Errorf("%+v", st)
	}
	third.end()

	// One that ends while the agent is away is over when it comes back.
	now := third.loop.Now()
	p := newPause(third.keeper.bootID, now.Add(-time.Hour), time.Now().Add(-time.Hour), time.Minute, "root", "")
	if err := savePause(state, &p); err != nil {
		t.Fatal(err)
	}
	fourth := mustOffice(t, state)
	if st := fourth.mustAsk(control.Question{Do: control.DoStatus}).Status; st.Kills != "enabled" || fourth.log.lines("ended while the agent was away") != 1 {
		t.Errorf("%+v", st)
	}
}

// A pause that cannot be kept is a pause all the same, and the one who asked is told.
func TestPauseNotKept(t *testing.T) {
	t.Parallel()
	o := mustOffice(t, t.TempDir())
	// In the place of the file, so that a rename fails for root, too.
	if err := os.MkdirAll(filepath.Join(o.options.State, pauseFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := o.mustAsk(control.Question{Do: control.DoPause, ForMS: 60_000})
	if r.Status.Kills != "paused" || !strings.Contains(r.Status.Warning, "a restart of the agent would forget it") {
		t.Errorf("%+v", r.Status)
	}
	_, err := control.Ask(t.Context(), o.options.State, control.Question{Do: control.DoPause, ForMS: MaxPause.Milliseconds() + 1})
	if err == nil || !strings.Contains(err.Error(), "expected at most 24h0m0s") {
		t.Errorf("longer than the longest: %v", err)
	}
}
