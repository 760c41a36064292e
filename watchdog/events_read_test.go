// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mustNext returns the numbers of the new events.
func mustNext(t *testing.T, r *EventReader) string {
	t.Helper()
	records, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, record := range records {
		words = append(words, fmt.Sprintf("%d:%s", record.Seq, record.Kind))
	}
	return strings.Join(words, " ")
}

func mustReader(t *testing.T, dir string) *EventReader {
	t.Helper()
	r := NewEventReader(dir)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func mustAppend(t *testing.T, s *EventStore, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		if err := s.Append(Event{Kind: kind, Addr: hostA}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEventReaderFollows(t *testing.T) {
	dir := t.TempDir()
	r := mustReader(t, dir)
	if got := mustNext(t, r); got != "" {
		t.Errorf("no file: events %s", got)
	}
	s := mustEvents(t, dir, eventsMaxBytes)
	defer s.Close()
	if got := mustNext(t, r); got != "" {
		t.Errorf("empty file: events %s", got)
	}
	mustAppend(t, s, "a", "b")
	if got, want := mustNext(t, r), "1:a 2:b"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if got := mustNext(t, r); got != "" {
		t.Errorf("nothing new: events %s", got)
	}
	mustAppend(t, s, "c")
	if got, want := mustNext(t, r), "3:c"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if r.Damaged() != 0 || r.Missed() != 0 {
		t.Errorf("%d damaged, %d missed", r.Damaged(), r.Missed())
	}
}

// Every event is read once, whenever the agent begins a new file.
func TestEventReaderRotation(t *testing.T) {
	dir := t.TempDir()
	s := mustEvents(t, dir, 2048)
	defer s.Close()
	r := mustReader(t, dir)
	next := 1
	for round := range 300 {
		var want []string
		for range round%7 + 1 {
			mustAppend(t, s, "x")
			want = append(want, fmt.Sprintf("%d:x", next))
			next++
		}
		if got := mustNext(t, r); got != strings.Join(want, " ") {
			t.Fatalf("round %d: events %s, want %s", round, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, eventsOld)); err != nil {
		t.Fatal("no rotation took place:", err)
	}
	if got := mustNext(t, mustReader(t, dir)); !strings.HasSuffix(got, fmt.Sprintf(" %d:x", next-1)) || strings.Count(got, ":") < 20 {
		t.Errorf("a new reader saw %s", got)
	}
}

// A line is read when its end is there. One that nobody will end is counted.
func TestEventReaderTornLines(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, eventsFile)
	mustWrite := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	r := mustReader(t, dir)
	mustWrite(`{"seq":1,"kind":"a"}` + "\n" + `{"seq":2,"ki`)
	if got := mustNext(t, r); got != "1:a" {
		t.Errorf("events %s", got)
	}
	mustWrite(`nd":"b","new":[1]}` + "\n")
	if got := mustNext(t, r); got != "2:b" {
		t.Errorf("events %s", got)
	}
	mustWrite("\x00{\n{}\n" + strings.Repeat("x", 2*eventMaxBytes) + "\n" + `{"seq":5,"kind":"c"}` + "\n" + `{"seq":6`)
	if got := mustNext(t, r); got != "5:c" || r.Damaged() != 3 || r.Missed() != 2 {
		t.Errorf("events %s, %d damaged, %d missed", got, r.Damaged(), r.Missed())
	}
	if err := os.Rename(path, filepath.Join(dir, eventsOld)); err != nil {
		t.Fatal(err)
	}
	mustWrite(`{"seq":7,"kind":"d"}` + "\n")
	if got := mustNext(t, r); got != "7:d" || r.Damaged() != 4 {
		t.Errorf("events %s, %d damaged", got, r.Damaged())
	}
}

func TestEventReaderKeepsTheWholeLine(t *testing.T) {
	dir := t.TempDir()
	line := `{"seq":4,"kind":"warrant","addr":"192.0.2.1","of a newer version":{"a":[1,2]}}`
	if err := os.WriteFile(filepath.Join(dir, eventsFile), []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	records, err := mustReader(t, dir).Next()
	if err != nil || len(records) != 1 || string(records[0].Line) != line || records[0].Addr != hostA {
		t.Errorf("records %+v, %v", records, err)
	}
}

func TestEventReaderNoDirectory(t *testing.T) {
	if _, err := NewEventReader(filepath.Join(t.TempDir(), "none")).Next(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want that it does not exist", err)
	}
}
