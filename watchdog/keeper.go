// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// keeper writes the agent's files, off the loop: a disk that stalls must not
// delay a beat. Of what it is asked to keep, only the newest set of armed
// sessions is written; events are all written.
type keeper struct {
	dir    string
	log    *slog.Logger
	events *EventStore
	armed  *ArmedStore
	bootID string
	wake   chan struct{}

	mu      sync.Mutex // guards the following
	records []ArmedRecord
	dirty   bool
	startUS int64
	pending []Event
	// paused is to be written when there is somebody in pausers to be told of that.
	paused  *Pause
	pausers []chan<- error // nil: nobody waits
}

func openKeeper(dir string, log *slog.Logger) (*keeper, error) {
	bootID, err := BootID()
	if err != nil {
		return nil, err
	}
	events, err := OpenEvents(dir)
	if err != nil {
		return nil, err
	}
	return &keeper{
		dir: dir, log: log, events: events, armed: NewArmedStore(dir), bootID: bootID, wake: make(chan struct{}, 1),
	}, nil
}

// load returns the armed sessions of the last run.
func (k *keeper) load() ArmedSet {
	set, err := k.armed.Load()
	if err != nil {
		k.log.Error("cannot use the armed sessions of the last run: a client that died meanwhile is not judged", "err", err)
	}
	return set
}

// save asks for the armed sessions to be written.
func (k *keeper) save(records []ArmedRecord) {
	k.mu.Lock()
	k.records, k.dirty = records, true
	k.mu.Unlock()
	k.kick()
}

// postmaster tells the start of the postmaster that the sessions belong to, and
// returns whether it has changed: the sessions have to be saved again then.
func (k *keeper) postmaster(startUS int64) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed = startUS != 0 && startUS != k.startUS
	if changed {
		k.startUS = startUS
	}
	return changed
}

// loadPause returns the pause of the last run, nil for none.
func (k *keeper) loadPause() *Pause {
	p, err := loadPause(k.dir)
	if err != nil {
		k.log.Error("cannot go on with the pause of the last run: kills are allowed", "err", err)
	}
	return p
}

// savePause asks for a pause to be written, or with nil to be taken back. done gets
// the result, which may be nil; it must have room.
func (k *keeper) savePause(p *Pause, done chan<- error) {
	k.mu.Lock()
	k.paused, k.pausers = p, append(k.pausers, done)
	k.mu.Unlock()
	k.kick()
}

// event asks for what the docket decided to be written.
func (k *keeper) event(e DocketEvent) { k.record(e.event()) }

// record asks for an event to be written.
func (k *keeper) record(e Event) {
	k.mu.Lock()
	k.pending = append(k.pending, e)
	k.mu.Unlock()
	k.kick()
}

func (k *keeper) kick() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			k.write()
			return
		case <-k.wake:
			k.write()
		}
	}
}

func (k *keeper) write() {
	k.mu.Lock()
	set := ArmedSet{BootID: k.bootID, PostmasterStart: k.startUS, Records: k.records}
	dirty, pending := k.dirty, k.pending
	paused, pausers := k.paused, k.pausers
	k.dirty, k.records, k.pending, k.pausers = false, nil, nil, nil
	k.mu.Unlock()
	if len(pausers) > 0 {
		k.writePause(paused, pausers)
	}
	if dirty {
		if err := k.armed.Save(set); err != nil {
			k.log.Error("cannot keep the armed sessions: a client that dies while the agent is away will not be judged", "err", err)
		}
	}
	for _, e := range pending {
		if err := k.events.Append(e); err != nil {
			k.log.Error("cannot keep an event", "err", err)
		}
	}
	if len(pending) > 0 {
		if err := k.events.Sync(); err != nil {
			k.log.Error("cannot keep events", "err", err)
		}
	}
}

func (k *keeper) writePause(p *Pause, pausers []chan<- error) {
	err := savePause(k.dir, p)
	if err != nil {
		k.log.Error("the pause of kills would be forgotten, or wrongly gone on with, by a restart of the agent", "err", err)
	}
	for _, done := range pausers {
		if done != nil {
			done <- err
		}
	}
}

func (k *keeper) close() {
	k.write()
	_ = k.events.Close()
}

// event turns a decision of the docket into a record.
func (e DocketEvent) event() Event {
	var outcome Outcome
	if e.Kind == DocketSuspended {
		outcome = OutcomePaused
	}
	return Event{
		Time: clock.Wall(e.At), Kind: e.Kind.String(), Outcome: string(outcome), Addr: e.Addr, Conmgr: hex.EncodeToString(e.Conmgr[:]),
		Session: e.Session, Warrant: e.Warrant, Case: e.Case.String(), Reason: e.Reason.String(),
		SilenceMS: e.Silence.Milliseconds(), DryRun: e.DryRun,
	}
}

const (
	lockFile = "pgwatchdog.lock"
	idFile   = "watchdog.id"
)

// lockState makes sure that no other watchdog uses the directory. Close the file
// to let go; a crash lets go by itself.
func lockState(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock state directory %s: another pgwatchdog uses it: %w", dir, err)
	}
	return f, nil
}

// ownID returns the lasting identity of this watchdog; the first call in a
// directory draws it.
func ownID(dir string) (id wire.ID, err error) {
	path := filepath.Join(dir, idFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, _ = rand.Read(id[:]) // never fails (crypto/rand)
		return id, replaceFile(path, []byte(hex.EncodeToString(id[:])+"\n"))
	}
	if err != nil {
		return id, fmt.Errorf("read own id: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("read %s: expected 32 hexadecimal digits; remove the file to draw a new id", path)
	}
	return wire.ID(raw), nil
}
