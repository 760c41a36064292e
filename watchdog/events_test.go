// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mustEvents(t *testing.T, dir string, maxBytes int64) *EventStore {
	t.Helper()
	s, err := openEvents(dir, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kinds(events []Event) string {
	var words []string
	for _, e := range events {
		words = append(words, fmt.Sprintf("%d:%s", e.Seq, e.Kind))
	}
	return strings.Join(words, " ")
}

// TestEventsSurvive: a torn last line costs that line and nothing else.
func TestEventsSurvive(t *testing.T) {
	dir := t.TempDir()
	s := mustEvents(t, dir, eventsMaxBytes)
	for _, kind := range []string{"a", "b", "c"} {
		if err := s.Append(Event{Kind: kind, Addr: hostA}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, eventsFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		s = mustEvents(t, dir, eventsMaxBytes)
		if s.Damaged() != 1 {
			t.Errorf("%d damaged lines: want 1", s.Damaged())
		}
		if err := s.Append(Event{Kind: fmt.Sprint("d", round)}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = mustEvents(t, dir, eventsMaxBytes)
	if got, want := kinds(s.Latest(10)), "4:d1 3:d0 2:b 1:a"; got != want {
		t.Errorf("events %s: want %s", got, want)
	}
	if got := s.Latest(2); len(got) != 2 || got[1].Kind != "d0" || got[0].Time.IsZero() {
		t.Errorf("latest %+v", got)
	}
	if e := s.Latest(4)[3]; e.Addr != hostA {
		t.Errorf("event %+v", e)
	}
	if len(s.Latest(-1)) != 0 {
		t.Error("a negative number of events")
	}
}

// TestEventsRotate: two files of bounded size, whatever is written.
func TestEventsRotate(t *testing.T) {
	dir := t.TempDir()
	const limit = 4096
	s := mustEvents(t, dir, limit)
	for i := range 5000 {
		if err := s.Append(Event{Kind: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Size() > limit || info.Mode() != 0o600 {
			t.Errorf("%s: %d bytes, %v, %v", f.Name(), info.Size(), info.Mode(), err)
		}
	}
	if n := len(s.Latest(1 << 20)); n != eventsInMemory {
		t.Errorf("%d events in memory: want %d", n, eventsInMemory)
	}
	latest := mustEvents(t, dir, limit).Latest(3)
	if got, want := kinds(latest), "5000:4999 4999:4998 4998:4997"; got != want {
		t.Errorf("events %s: want %s", got, want)
	}
}

func TestEventsGarbage(t *testing.T) {
	dir := t.TempDir()
	garbage := "\x00\x01\n{}\n[1]\n" + strings.Repeat("x", 2*eventMaxBytes) + "\nnull"
	if err := os.WriteFile(filepath.Join(dir, eventsFile), []byte(garbage), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustEvents(t, dir, eventsMaxBytes)
	if err := s.Append(Event{Kind: "first"}); err != nil {
		t.Fatal(err)
	}
	if got := kinds(s.Latest(10)); got != "1:first" || s.Damaged() == 0 {
		t.Errorf("events %s, %d damaged", got, s.Damaged())
	}
}

func TestEventsManySurvivors(t *testing.T) {
	s := mustEvents(t, t.TempDir(), eventsMaxBytes)
	if err := s.Append(Event{Survivors: make([]Survivor, 10000), SurvivorsTotal: 10000}); err != nil {
		t.Fatal(err)
	}
	if e := s.Latest(1)[0]; len(e.Survivors) != maxNamed || e.SurvivorsTotal != 10000 {
		t.Errorf("%d survivors of %d", len(e.Survivors), e.SurvivorsTotal)
	}
}
