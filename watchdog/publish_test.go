// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// document is what a published file says.
type document struct {
	Version  int              `json:"version"`
	AsOf     int64            `json:"as_of_us"`
	StartUS  int64            `json:"postmaster_start_us"`
	Kills    string           `json:"kills"`
	Sessions []map[string]any `json:"sessions"`
	Events   []Event          `json:"events"`
}

// published is a publisher of a test, with as many equal sessions as rows says.
type published struct {
	*publisher
	t    *testing.T
	rows int
	log  bytes.Buffer
}

func newPublished(t *testing.T) *published {
	t.Helper()
	p := &published{t: t}
	p.publisher = &publisher{
		dir: filepath.Join(t.TempDir(), "run"), log: slog.New(slog.NewTextHandler(&p.log, nil)),
		sessions: p.write, events: mustEvents(t, t.TempDir(), eventsMaxBytes),
	}
	p.setDirectory("/data")
	p.setInstance(1000, "enabled")
	return p
}

func (p *published) write(_ context.Context, write func([]byte) error) (int, error) {
	now := time.Now()
	row := SessionRow{Addr: netip.MustParseAddr("10.0.0.1"), Port: 1, State: wire.StateUp, Armed: now, Heard: now}
	var b []byte
	for i := range p.rows {
		b = row.Append(append(b[:0], ",\n"...))
		if err := write(b); err != nil {
			return i, err
		}
	}
	return p.rows, nil
}

func (p *published) file(part string) string { return p.path(p.told, part) }

func (p *published) mustRead(part string) (d document) {
	p.t.Helper()
	text, err := os.ReadFile(p.file(part))
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		p.t.Fatalf("%v\n%s", err, text)
	}
	return d
}

// TestPublishRoundTrip: a row is one JSON object of ASCII with every fact in it.
func TestPublishRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 15, 0, 0, 1000, time.FixedZone("", 3600))
	row := SessionRow{
		Addr: netip.MustParseAddr("fe80::1"), Port: 65535, Interval: 50 * time.Millisecond, Timeout: 150 * time.Millisecond,
		State: wire.StateLate, UDP: true, Keyed: true, Protected: true, Armed: at, Heard: at, RTT: 42 * time.Microsecond,
		Received: 1, Lost: 2, Sent: 3, SentLost: 4, Session: 1<<56 - 1, Conmgr: wire.ID{0xfe},
	}
	const want = `{"addr":"fe80::1","port":65535,"interval_ms":50,"timeout_ms":150,"state":"late","transport":"udp","keyed":true,` +
		`"protected":true,"armed_us":1795615200000001,"heard_us":1795615200000001,"rtt_us":42,` +
		`"received":1,"lost":2,"sent":3,"sent_lost":4,"session":72057594037927935,"conmgr":"fe000000000000000000000000000000"}`
	if got := string(row.Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	row.Armed, row.RTT = time.Time{}, 0
	if got := string(row.Append(nil)); strings.Contains(got, "armed") || strings.Contains(got, "rtt") {
		t.Errorf("what is unknown is said: %s", got)
	}
}

// TestPublishASCII: any text comes through as ASCII, and every backslash begins an
// escape that stands for itself.
func TestPublishASCII(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "plain", "quote \" tab \t line \n", `C:\dir\u00e9`, `\`, `\\`, "jürgen", "€", "𝄞 and \uffff", "<&>\u2028\x7f\x01", "\xff broken",
	} {
		marshalled, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		got := appendASCII(nil, marshalled)
		var back, want string
		if err := errors.Join(json.Unmarshal(got, &back), json.Unmarshal(marshalled, &want)); err != nil || back != want {
			t.Errorf("%q: %q, %v", text, back, err)
		}
		if i := bytes.IndexFunc(got, func(r rune) bool { return r >= 0x80 }); i >= 0 {
			t.Errorf("%q: %s is not ASCII", text, got)
		}
		if bytes.Contains(got, []byte(`\\`)) {
			t.Errorf("%q: %s has a backslash that begins no escape", text, got)
		}
	}
	if got := string(appendASCII(nil, []byte(`"a\u0000b"`))); got != `"a\ufffdb"` {
		t.Errorf("NUL: %s", got)
	}
}

// TestPublishEvents: the newest first, and no more than anybody wants to read.
func TestPublishEvents(t *testing.T) {
	t.Parallel()
	p := newPublished(t)
	p.publish(t.Context())
	if d := p.mustRead("events"); d.StartUS != 1000 || len(d.Events) != 0 {
		t.Errorf("without events: %+v", d)
	}
	pids := make([]int32, maxPIDs)
	for range 210 {
		if err := p.events.Append(Event{Kind: "warrant", PIDs: pids[:2]}); err != nil {
			t.Fatal(err)
		}
	}
	p.publish(t.Context())
	if d := p.mustRead("events"); len(d.Events) != publishedEvents || d.Events[0].Seq != 210 || d.Events[1].Seq != 209 {
		t.Errorf("%d events", len(d.Events))
	}
	for i := range pids {
		pids[i] = 1<<22 - 1
	}
	for range 140 {
		if err := p.events.Append(Event{Kind: "warrant", PIDs: pids}); err != nil {
			t.Fatal(err)
		}
	}
	p.publish(t.Context())
	info, err := os.Stat(p.file("events"))
	if err != nil {
		t.Fatal(err)
	}
	if d := p.mustRead("events"); info.Size() > publishedBytes+1000 || len(d.Events) < 100 || d.Events[0].Seq != 350 {
		t.Errorf("%d bytes, %d events", info.Size(), len(d.Events))
	}
	before := info.ModTime()
	p.publish(t.Context())
	if info, err = os.Stat(p.file("events")); err != nil || info.ModTime() != before {
		t.Errorf("written again without a new event: %v", err)
	}
}

// TestPublishDue: news is written at once, figures every second, of a crowd less
// often, and what is not written is said to be true still.
func TestPublishDue(t *testing.T) {
	t.Parallel()
	now := told{directory: "/data", startUS: 1, kills: "enabled"}
	for _, c := range []struct {
		name  string
		crowd int
		age   time.Duration
		news  bool
		last  told
		want  bool
	}{
		{"first", 0, time.Hour, false, told{}, true},
		{"another postmaster", 10000, 0, false, told{directory: "/data", startUS: 2, kills: "enabled"}, true},
		{"kills paused", 10000, 0, false, told{directory: "/data", startUS: 1, kills: "paused"}, true},
		{"nothing", 1, 500 * time.Millisecond, false, now, false},
		{"figures", 1, 1001 * time.Millisecond, false, now, true},
		{"figures of a crowd", 10000, 5 * time.Second, false, now, false},
		{"figures of a crowd at last", 10000, 6 * time.Second, false, now, true},
		{"news", 1, time.Millisecond, true, now, true},
		{"news of a crowd", 10000, 500 * time.Millisecond, true, now, false},
		{"news of a crowd at last", 10000, time.Second, true, now, true},
	} {
		p := &publisher{last: c.last, count: c.crowd, written: mono.Instant(time.Hour)}
		p.changed.Store(c.news)
		if got := p.due(now, p.written.Add(c.age)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}

	p := newPublished(t)
	p.publish(t.Context())
	first := p.mustRead("sessions")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(p.file("sessions"), old, old); err != nil {
		t.Fatal(err)
	}
	p.written = clock.Now()
	p.publish(t.Context())
	if again := p.mustRead("sessions"); again.AsOf != first.AsOf {
		t.Error("written again without need")
	}
	if info, err := os.Stat(p.file("sessions")); err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("no sign of life: %v", err)
	}
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	p.written = clock.Now()
	p.publish(t.Context())
	p.mustRead("sessions")
	p.mustRead("events")
}

// TestPublishDirectory: only where nobody else can put files, which are then of use
// to everybody, whatever the umask is.
func TestPublishDirectory(t *testing.T) {
	p := newPublished(t)
	defer unix.Umask(unix.Umask(0o077))
	p.publish(t.Context())
	for path, want := range map[string]fs.FileMode{p.dir: 0o755 | fs.ModeDir, p.file("sessions"): 0o644, p.file("events"): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	info, err := os.Lstat(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	self := os.Geteuid()
	if err := checkRunDir(p.dir, info, self); err != nil {
		t.Error(err)
	}
	if self == 0 {
		mustChown(t, p.dir, 65534)
		if info, err = os.Lstat(p.dir); err != nil {
			t.Fatal(err)
		}
		for user, good := range map[int]bool{0: true, 65534: true, 1000: false} {
			if err := checkRunDir(p.dir, info, user); (err == nil) != good {
				t.Errorf("nobody's directory for user %d: %v", user, err)
			}
		}
	}
	for name, spoil := range map[string]func(dir string) error{
		"a file": func(dir string) error { return os.WriteFile(dir, nil, 0o755) },
		"a link": func(dir string) error { return os.Symlink(filepath.Dir(dir), dir) },
		"open":   func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
	} {
		p := newPublished(t)
		if err := spoil(p.dir); err != nil {
			t.Fatal(err)
		}
		p.publish(t.Context())
		p.publish(t.Context())
		if n := strings.Count(p.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%s: %d warnings: %s", name, n, p.log.String())
		}
		if _, err := os.Stat(p.file("sessions")); err == nil {
			t.Errorf("%s: written to", name)
		}
	}
}

func mustChown(t *testing.T, path string, owner int) {
	t.Helper()
	if err := os.Chown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
}

// TestPublishLinks: a link in the way leads nowhere.
func TestPublishLinks(t *testing.T) {
	t.Parallel()
	p := newPublished(t)
	victim := filepath.Join(t.TempDir(), "victim")
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Chtimes(victim, old, old), os.Mkdir(p.dir, 0o755))
	for _, name := range []string{p.file("sessions"), p.file("sessions") + ".new", p.file("events"), p.file("events") + ".new"} {
		err = errors.Join(err, os.Symlink(victim, name))
	}
	if err != nil {
		t.Fatal(err)
	}
	p.publish(t.Context())
	p.mustRead("sessions")
	p.mustRead("events")
	// Also when nothing is to be written.
	if err := errors.Join(os.Remove(p.file("sessions")), os.Symlink(victim, p.file("sessions"))); err != nil {
		t.Fatal(err)
	}
	p.publish(t.Context())
	text, err := os.ReadFile(victim)
	info, statErr := os.Stat(victim)
	if err := errors.Join(err, statErr); err != nil || string(text) != "precious" || !info.ModTime().Equal(old) || info.Mode() != 0o600 {
		t.Errorf("the file behind the link: %q, %v, %v", text, info, err)
	}
}

// TestPublishWhole: whoever reads meanwhile sees the old file or the new one.
func TestPublishWhole(t *testing.T) {
	t.Parallel()
	p := newPublished(t)
	p.rows = 50
	p.publish(t.Context())
	var reading sync.WaitGroup
	stop := make(chan struct{})
	reads := 0
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if d := p.mustRead("sessions"); len(d.Sessions) != p.rows {
				t.Errorf("%d rows", len(d.Sessions))
			}
			reads++
		}
	})
	for range 100 {
		p.changed.Store(true)
		p.written = 0
		p.publish(t.Context())
	}
	close(stop)
	reading.Wait()
	if reads < 3 {
		t.Errorf("%d reads prove nothing", reads)
	}
}

// TestPublishLife: nothing before the instance is known, the sessions leave with the
// agent and with the directory, trouble is told once and so is its end.
func TestPublishLife(t *testing.T) {
	t.Parallel()
	p := newPublished(t)
	p.setDirectory("")
	p.publish(t.Context())
	if _, err := os.Stat(p.dir); err == nil {
		t.Error("published without a data directory")
	}
	p.setDirectory("/data")
	p.setInstance(0, "enabled")
	p.publish(t.Context())
	if _, err := os.Stat(p.dir); err == nil {
		t.Error("published without a postmaster")
	}
	p.setInstance(1, "dry run")
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx) })
	first := filepath.Join(p.dir, publishedName("/data")+".sessions.json")
	scratchEventually(t, "published", func() bool { _, err := os.Stat(first); return err == nil })
	if d := p.mustRead("sessions"); d.Kills != "dry run" || d.Version != publishVersion {
		t.Errorf("%+v", d)
	}
	p.setDirectory("/other")
	second := filepath.Join(p.dir, publishedName("/other")+".sessions.json")
	scratchEventually(t, "moved", func() bool {
		_, gone := os.Stat(first)
		_, err := os.Stat(second)
		return err == nil && errors.Is(gone, fs.ErrNotExist)
	})
	stop()
	running.Wait()
	if _, err := os.Stat(second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sessions of an agent that is gone: %v", err)
	}
	p.mustRead("events")
	if got := p.log.String(); strings.Count(got, "the role may not read data_directory") != 1 || strings.Count(got, "is told again") != 1 {
		t.Errorf("log: %s", got)
	}

	off := newPublished(t)
	off.dir = ""
	off.setDirectory("")
	off.run(t.Context())
	if off.log.Len() > 0 {
		t.Errorf("switched off, and complains: %s", off.log.String())
	}
}

// BenchmarkPublish is one writing of all sessions, without what the loop does.
func BenchmarkPublish(b *testing.B) {
	p := &published{rows: 10000}
	p.publisher = &publisher{dir: b.TempDir(), sessions: p.write, log: slog.New(slog.DiscardHandler)}
	for b.Loop() {
		if err := p.publishSessions(b.Context(), told{directory: "/data", startUS: int64(b.N), kills: "enabled"}); err != nil {
			b.Fatal(err)
		}
		p.last = told{}
	}
}

// TestDefaultRunDir: the extension looks where the agent writes.
func TestDefaultRunDir(t *testing.T) {
	t.Parallel()
	sql, err := os.ReadFile("extension/watchdog--1.0.sql")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(sql), "base CONSTANT text := '"+DefaultRunDir+"/'") {
		t.Errorf("the extension does not look in %s", DefaultRunDir)
	}
}
