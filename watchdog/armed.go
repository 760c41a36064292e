// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	armedFile    = "armed.json"
	armedDamaged = "armed.json.damaged"
	armedVersion = 1
	// armedMaxBytes is more than maxRelations records take.
	armedMaxBytes = 32 << 20
)

// ErrArmedDamaged says that the file of armed sessions could not be read as
// what it should be. It was moved aside as armed.json.damaged.
var ErrArmedDamaged = errors.New("file of armed sessions is damaged")

// ArmedSet is what the file of armed sessions holds. Its instants are of the
// boot named in it.
type ArmedSet struct {
	BootID          string // /proc/sys/kernel/random/boot_id
	PostmasterStart int64  // µs since the Unix epoch; 0 while unknown
	Records         []ArmedRecord
}

// Discard returns why the records must not be used, or "" when they may: after
// a boot their instants mean nothing, and with another postmaster the sessions
// that they were about are gone.
func (s *ArmedSet) Discard(bootID string, postmasterStart int64) string {
	switch {
	case s.BootID != bootID:
		return "the host was booted since"
	case s.PostmasterStart != postmasterStart:
		return "the instance was started since"
	}
	return ""
}

// ArmedStore keeps the armed sessions in the state directory. It is not safe
// for concurrent use.
type ArmedStore struct{ dir string }

// NewArmedStore returns the store in a directory that exists and belongs to
// the agent alone.
func NewArmedStore(dir string) *ArmedStore { return &ArmedStore{dir: dir} }

type armedJSON struct {
	Version         int          `json:"version"`
	BootID          string       `json:"boot_id"`
	PostmasterStart int64        `json:"postmaster_start_us"`
	Clients         []armedEntry `json:"clients"`
}

type armedEntry struct {
	Addr        netip.Addr `json:"addr"`
	Conmgr      string     `json:"conmgr"`
	Incarnation uint64     `json:"incarnation"`
	IntervalMS  int64      `json:"interval_ms"`
	TimeoutMS   int64      `json:"timeout_ms"`
	ArmedNS     int64      `json:"armed_boottime_ns"`
}

// Save replaces the file atomically: after a crash the old or the new one is
// there, whole.
func (s *ArmedStore) Save(set ArmedSet) error {
	err := replaceFileBy(filepath.Join(s.dir, armedFile), set.write)
	if err != nil {
		return fmt.Errorf("save armed sessions: %w", err)
	}
	return nil
}

// write writes an armedJSON, one client after the other: there can be thousands,
// and the agent's memory is counted in bytes per client.
func (s *ArmedSet) write(w io.Writer) error {
	head, err := json.Marshal(armedJSON{Version: armedVersion, BootID: s.BootID, PostmasterStart: s.PostmasterStart, Clients: []armedEntry{}})
	if err != nil {
		return err
	}
	const tail = "]}"
	if _, err := w.Write(bytes.TrimSuffix(head, []byte(tail))); err != nil {
		return err
	}
	for i := range s.Records {
		entry, err := json.Marshal(s.Records[i].entry())
		if err != nil {
			return err
		}
		if i > 0 {
			entry = append([]byte(",\n"), entry...)
		}
		if _, err := w.Write(entry); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, tail+"\n")
	return err
}

func (r *ArmedRecord) entry() armedEntry {
	return armedEntry{
		Addr: r.Addr, Conmgr: hex.EncodeToString(r.Conmgr[:]), Incarnation: r.Incarnation,
		IntervalMS: r.Interval.Milliseconds(), TimeoutMS: r.Timeout.Milliseconds(), ArmedNS: int64(r.Armed),
	}
}

// Load reads the file. No file is an empty set. A damaged one is moved aside
// and gives an empty set with an error that wraps [ErrArmedDamaged].
func (s *ArmedStore) Load() (ArmedSet, error) {
	path := filepath.Join(s.dir, armedFile)
	data, err := readBounded(path, armedMaxBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ArmedSet{}, nil
	case err != nil && !errors.Is(err, errTooLarge):
		return ArmedSet{}, fmt.Errorf("load armed sessions: %w", err)
	}
	var set ArmedSet
	if err == nil {
		set, err = parseArmed(data)
	}
	if err == nil {
		return set, nil
	}
	if moved := os.Rename(path, filepath.Join(s.dir, armedDamaged)); moved != nil {
		err = errors.Join(err, moved)
	}
	return ArmedSet{}, fmt.Errorf("load %s: %w: %w", path, ErrArmedDamaged, err)
}

func parseArmed(data []byte) (ArmedSet, error) {
	var doc armedJSON
	if err := json.Unmarshal(data, &doc); err != nil {
		return ArmedSet{}, err
	}
	if doc.Version != armedVersion {
		return ArmedSet{}, fmt.Errorf("version %d: expected %d", doc.Version, armedVersion)
	}
	set := ArmedSet{BootID: doc.BootID, PostmasterStart: doc.PostmasterStart}
	for i, e := range doc.Clients {
		r, err := e.record()
		if err != nil {
			return ArmedSet{}, fmt.Errorf("client %d: %w", i, err)
		}
		set.Records = append(set.Records, r)
	}
	return set, nil
}

func (e *armedEntry) record() (ArmedRecord, error) {
	id, err := hex.DecodeString(e.Conmgr)
	if err != nil || len(id) != len(wire.ID{}) {
		return ArmedRecord{}, fmt.Errorf("conmgr %q: expected 32 hexadecimal digits", e.Conmgr)
	}
	limit := maxTimeout.Milliseconds()
	if !e.Addr.IsValid() || e.TimeoutMS <= 0 || e.TimeoutMS > limit || e.IntervalMS < 0 {
		return ArmedRecord{}, fmt.Errorf("addr %s, interval %d ms, timeout %d ms: out of range", e.Addr, e.IntervalMS, e.TimeoutMS)
	}
	return ArmedRecord{
		Client:   Client{Addr: e.Addr, Conmgr: wire.ID(id), Incarnation: e.Incarnation},
		Interval: time.Duration(min(e.IntervalMS, limit)) * time.Millisecond,
		Timeout:  time.Duration(e.TimeoutMS) * time.Millisecond,
		Armed:    mono.Instant(e.ArmedNS),
	}, nil
}

// BootID returns the identity of this boot of the host.
func BootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

var errTooLarge = errors.New("file is too large")

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: expected at most %d bytes", errTooLarge, limit)
	}
	return data, err
}
