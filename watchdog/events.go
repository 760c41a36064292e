// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	eventsFile     = "events.jsonl"
	eventsOld      = "events.jsonl.1"
	eventsMaxBytes = 1 << 20
	eventsInMemory = 1000
	eventMaxBytes  = 256 << 10
)

// Survivor is a database session that a warrant covered and did not end.
type Survivor struct {
	PID        int32  `json:"pid"`
	User       string `json:"user,omitempty"`
	ClientPort int32  `json:"client_port,omitempty"`
	Type       string `json:"type,omitempty"`
	Why        string `json:"why"`
}

// Event is one fact worth remembering: a warrant and what became of it, or
// something else that an operator may ask about later. Times are for people;
// nothing is decided by them.
type Event struct {
	Seq  uint64    `json:"seq"` // rising, gaps are lost events
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`

	Addr      netip.Addr `json:"addr,omitzero"`
	Conmgr    string     `json:"conmgr,omitempty"`
	Session   uint64     `json:"session,omitempty"`
	Warrant   uint64     `json:"warrant,omitempty"`
	Case      string     `json:"case,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	SilenceMS int64      `json:"silence_ms,omitempty"` // last valid frame to the verdict
	// LastValidAt and VerdictAt are the instants in wall-clock time.
	LastValidAt time.Time `json:"last_valid_at,omitzero"`
	VerdictAt   time.Time `json:"verdict_at,omitzero"`
	Outcome     string    `json:"outcome,omitempty"`
	// By is who paused or resumed kills, and Until the end of that pause.
	By       string    `json:"by,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	DryRun   bool      `json:"dry_run,omitempty"`
	Evidence string    `json:"evidence,omitempty"`

	// Joined is the warrant of the same address whose run did the work.
	Joined uint64 `json:"joined,omitempty"`

	Sockets          string `json:"sockets,omitempty"`           // in words
	SocketsDestroyed int    `json:"sockets_destroyed,omitempty"` // gone
	SocketsLeft      int    `json:"sockets_left,omitempty"`      // covered by the warrant and not gone
	SocketsSpared    int    `json:"sockets_spared,omitempty"`    // of replication, or the agent's own
	SocketsBusy      int    `json:"sockets_busy,omitempty"`      // heard since the verdict, so left alone

	Backends       int                `json:"backends,omitempty"`  // covered by the warrant
	Ended          int                `json:"ended,omitempty"`     // of these, gone at the end
	Newer          int                `json:"newer,omitempty"`     // of the address, began after the verdict
	Spared         int                `json:"spared,omitempty"`    // replication that was spared
	PIDs           []int32            `json:"pids,omitempty"`      // of the sessions covered, the first thousand
	Survivors      []Survivor         `json:"survivors,omitempty"` // the first hundred
	SurvivorsTotal int                `json:"survivors_total,omitempty"`
	StepsMS        map[string]float64 `json:"steps_ms,omitempty"`
	Err            string             `json:"error,omitempty"`
}

// EventStore keeps events in memory and, as JSON lines, in the state directory,
// where they survive a restart of the agent. It holds at most two files of
// about 1 MiB. It is safe for concurrent use.
type EventStore struct {
	dir      string
	maxBytes int64

	mu sync.Mutex // guards the following
	// ring has the latest events, oldest first.
	ring    []Event
	seq     uint64
	file    *os.File // nil after a failed rotation or Close
	size    int64
	dirty   bool
	damaged int
}

// OpenEvents opens or makes the store in a directory that exists. Lines that
// cannot be read, such as one torn by a crash, are skipped and counted.
func OpenEvents(dir string) (*EventStore, error) {
	return openEvents(dir, eventsMaxBytes)
}

func openEvents(dir string, maxBytes int64) (*EventStore, error) {
	s := &EventStore{dir: dir, maxBytes: maxBytes}
	for _, name := range []string{eventsOld, eventsFile} {
		if err := s.read(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read events: %w", err)
		}
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	return s, nil
}

func (s *EventStore) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 2*s.maxBytes+eventMaxBytes))
	lines.Buffer(nil, eventMaxBytes+1)
	for lines.Scan() {
		var e Event
		if len(lines.Bytes()) == 0 {
			continue
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Seq <= s.seq {
			s.damaged++
			continue
		}
		s.remember(e)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		s.damaged++
		return nil
	}
	return lines.Err()
}

// open opens the current file for appending and ends a torn last line, so that
// the next event starts a line of its own.
func (s *EventStore) open() error {
	f, err := os.OpenFile(filepath.Join(s.dir, eventsFile), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			_, err = f.Write([]byte{'\n'})
			size++
		}
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	s.file, s.size = f, size
	return nil
}

func (s *EventStore) remember(e Event) {
	s.seq = e.Seq
	if len(s.ring) >= 2*eventsInMemory {
		s.ring = append(s.ring[:0], s.ring[len(s.ring)-eventsInMemory+1:]...)
	}
	s.ring = append(s.ring, e)
}

// Append gives the event its number, and its time when it has none, and writes
// it. The event is in memory even when an error comes back. It survives a crash
// of the agent at once, one of the host after [EventStore.Sync].
func (s *EventStore) Append(e Event) error {
	if len(e.Survivors) > maxNamed {
		e.Survivors = e.Survivors[:maxNamed]
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Seq = s.seq + 1
	s.remember(e)
	if err := s.writeLocked(e); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	return nil
}

func (s *EventStore) writeLocked(e Event) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(line) >= eventMaxBytes {
		return fmt.Errorf("event of %d bytes: expected less than %d", len(line), eventMaxBytes)
	}
	if err := s.rotateLocked(int64(len(line))); err != nil {
		return err
	}
	n, err := s.file.Write(append(line, '\n'))
	s.size += int64(n)
	s.dirty = true
	return err
}

func (s *EventStore) rotateLocked(need int64) error {
	if s.file != nil && s.size+need < s.maxBytes {
		return nil
	}
	if s.file != nil {
		_ = s.file.Sync()
		_ = s.file.Close()
		s.file = nil
		path := filepath.Join(s.dir, eventsFile)
		if err := os.Rename(path, filepath.Join(s.dir, eventsOld)); err != nil {
			return err
		}
	}
	return s.open()
}

// Sync writes what was appended through to the disk. It may take as long as
// the disk takes; Append and Latest do not wait for it.
func (s *EventStore) Sync() error {
	s.mu.Lock()
	f, dirty := s.file, s.dirty
	s.dirty = false
	s.mu.Unlock()
	if f == nil || !dirty {
		return nil
	}
	// A rotation meanwhile has synced and closed it.
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("sync events: %w", err)
	}
	return nil
}

// Latest returns up to n events, the newest first.
func (s *EventStore) Latest(n int) []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = max(0, min(n, len(s.ring), eventsInMemory))
	latest := make([]Event, 0, n)
	for i := range n {
		latest = append(latest, s.ring[len(s.ring)-1-i])
	}
	return latest
}

// Seq returns the number of the newest event, 0 when there was none yet.
func (s *EventStore) Seq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// Damaged returns how many lines could not be read when the store was opened.
func (s *EventStore) Damaged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// Close syncs and closes the file. A later Append would open it again.
func (s *EventStore) Close() error {
	err := s.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return err
	}
	err = errors.Join(err, s.file.Close())
	s.file = nil
	return err
}
