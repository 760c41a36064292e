// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testName is a scheme with a level of its own, as conmgr's is.
func testName(l slog.Level) string {
	if l == 10 {
		return "LOG"
	}
	return l.String()
}

func testSeverity(l slog.Level) int {
	if l == 10 {
		return 6
	}
	return 4
}

func mustLogger(t *testing.T, o LogOptions) *slog.Logger {
	t.Helper()
	if o.LevelName == nil {
		o.LevelName = testName
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	log, err := NewLogger(o)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestTextLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := mustLogger(t, LogOptions{Stderr: &out, Level: slog.LevelWarn})
	log.Info("not written")
	log.With("peer", "db1").WithGroup("g").Log(t.Context(), 10, "instance lost", "why", "no answer", "err", errors.New("a\nb"))
	log.Warn("two\nlines \x1b[31m")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	prefix := fmt.Sprintf(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[%d\] `, os.Getpid())
	for i, want := range []string{
		`LOG:  instance lost peer=db1 g.why="no answer" g.err="a\\nb"$`,
		`WARN:  "two\\nlines \\u001b\[31m"$`,
	} {
		if len(lines) != 2 || !regexp.MustCompile(prefix+want).MatchString(lines[i]) {
			t.Errorf("line %d of %q, want %s", i, lines, want)
		}
	}
}

func TestJSONNamesTheLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	mustLogger(t, LogOptions{Stderr: &out, Format: FormatJSON}).Log(t.Context(), 10, "hello", "n", 1)
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["level"] != "LOG" || got["msg"] != "hello" || got["n"] != 1.0 {
		t.Errorf("got %v", got)
	}
}

func TestColorNamesTheLevel(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	mustLogger(t, LogOptions{Stderr: &out, Format: FormatColor}).Log(t.Context(), 10, "hello", "n", 1)
	if got := out.String(); !strings.Contains(got, "LOG") || !strings.Contains(got, "\x1b[") || !strings.Contains(got, "hello") {
		t.Errorf("got %q", got)
	}
}

func TestUnknownFormat(t *testing.T) {
	t.Parallel()
	_, err := NewLogger(LogOptions{Stderr: &bytes.Buffer{}, Format: "xml"})
	if want := `unknown log format "xml": expected auto, text, color or json`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestNoDestination(t *testing.T) {
	t.Parallel()
	mustLogger(t, LogOptions{}).Error("nobody hears this")
}

// JOURNAL_STREAM counts only when it names the very file.
func TestJournalHasNoTime(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	own := devInode(info)
	for _, tt := range []struct {
		stream string
		bare   bool
	}{{own, true}, {"1:1", false}, {"", false}} {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, _ = f.Seek(0, 0)
		mustLogger(t, LogOptions{Stderr: f, Getenv: func(string) string { return tt.stream }}).Info("hello")
		got, err := os.ReadFile(f.Name())
		if err != nil || (string(got) == "INFO:  hello\n") != tt.bare {
			t.Errorf("JOURNAL_STREAM=%s: %q, %v", tt.stream, got, err)
		}
	}
}

type syslogDaemon struct {
	*net.UnixConn
	path string
}

func mustSyslogDaemon(t *testing.T, path string) *syslogDaemon {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &syslogDaemon{c, path}
}

func (d *syslogDaemon) mustRead(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 10000)
	_ = d.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := d.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func testSyslog(t *testing.T) (*Syslog, *bytes.Buffer, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "syslog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var warn bytes.Buffer
	s := NewSyslog(16, "shop", testSeverity, &warn)
	s.path = filepath.Join(dir, "log")
	return s, &warn, s.path
}

func TestSyslogDatagram(t *testing.T) {
	t.Parallel()
	s, warn, path := testSyslog(t)
	daemon := mustSyslogDaemon(t, path)
	log := mustLogger(t, LogOptions{Syslog: s})
	log.Log(t.Context(), 10, "instance lost", "peer", "db1")
	want := fmt.Sprintf(`^<134>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d shop\[%d\]: LOG:  instance lost peer=db1$`, os.Getpid())
	if got := daemon.mustRead(t); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("got %q, want %s", got, want)
	}
	log.Error(strings.Repeat("x", 20000))
	if got := daemon.mustRead(t); len(got) > syslogLimit+100 || !strings.HasPrefix(got, "<132>") {
		t.Errorf("%d bytes: %.40q", len(got), got)
	}
	if warn.Len() > 0 {
		t.Errorf("warned: %s", warn)
	}
}

// The daemon is missing at first, comes, is restarted: one warning each time, and
// the number of lost messages when it is back.
func TestSyslogComesAndGoes(t *testing.T) {
	t.Parallel()
	s, warn, path := testSyslog(t)
	now := time.Unix(1700000000, 0)
	later := func() time.Time { now = now.Add(2 * time.Second); return now }
	for range 3 {
		if s.write(later(), 0, []byte("lost")) == nil {
			t.Error("written to nobody")
		}
	}
	if got := strings.Count(warn.String(), "WARNING:  could not send messages to syslog at "+path); got != 1 || strings.Count(warn.String(), "\n") != 1 {
		t.Errorf("warnings %q, want one", warn)
	}
	daemon := mustSyslogDaemon(t, path)
	if err := s.write(later(), 0, []byte("first")); err != nil {
		t.Fatal(err)
	}
	if got := daemon.mustRead(t); !strings.HasSuffix(got, "first") {
		t.Errorf("got %q", got)
	}
	if got := daemon.mustRead(t); !strings.HasSuffix(got, "3 messages before this one could not be sent to syslog") {
		t.Errorf("got %q", got)
	}
	_ = daemon.Close()
	_ = os.Remove(path)
	daemon = mustSyslogDaemon(t, path)
	if err := s.write(later(), 0, []byte("second")); err != nil {
		t.Fatal(err)
	}
	if got := daemon.mustRead(t); !strings.HasSuffix(got, "second") {
		t.Errorf("got %q", got)
	}
}

// A daemon that does not read must not stop the program.
func TestSyslogNeverWaits(t *testing.T) {
	t.Parallel()
	s, warn, path := testSyslog(t)
	mustSyslogDaemon(t, path)
	for range 5000 {
		_ = s.write(time.Now(), 0, []byte(strings.Repeat("x", 1000)))
	}
	if s.lost == 0 || warn.Len() > 0 {
		t.Errorf("%d lost, warnings %q", s.lost, warn)
	}
}

func TestCheckUser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		uid, euid int
		want      string
	}{
		{1000, 1000, ""},
		{0, 0, `"root" execution of conmgr is not permitted`},
		{1000, 0, `"root" execution of conmgr is not permitted`},
		{1000, 1001, "real and effective user IDs must match"},
		{0, 1000, "real and effective user IDs must match"},
	} {
		err := CheckUser("conmgr", tt.uid, tt.euid)
		if (err == nil) != (tt.want == "") || err != nil && !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("CheckUser(%d, %d) = %v, want %s", tt.uid, tt.euid, err, tt.want)
		}
	}
}

func devInode(info os.FileInfo) string {
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
