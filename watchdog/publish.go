// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// DefaultRunDir is where the SQL extension looks for what the agent tells.
const DefaultRunDir = "/run/pgconmgr"

const (
	// publishEvery is how often the publisher looks whether there is news, and says
	// that it lives.
	publishEvery = 500 * time.Millisecond
	// Sessions are written at once, but for pace times their number after the last
	// time: it costs half a hundredth of this for each of them.
	publishPace = 100 * time.Microsecond
	// Without news they are written for their figures, after a second and
	// figuresPace times their number.
	publishFigures = time.Second
	figuresPace    = 500 * time.Microsecond
)

// told is what of the instance stands in what is published.
type told struct {
	directory string // data_directory as the instance shows it; empty while unknown
	startUS   int64  // postmaster start
	kills     string
}

// publisher writes what the SQL extension shows of the agent: two files in a
// directory that the server process can read and nobody else can write to.
//
//	KEY.sessions.json   replaced when something has changed, or for the figures;
//	                    its time of change is the agent's sign of life
//	KEY.events.json     replaced when there is a new event
//
// KEY is made of the instance's data directory: the only setting by which the
// instances of a host differ for certain, and that no user can change. The file
// says which start of the postmaster it is about, in case another host's instance
// has the same directory. Their content is nothing that ps and ss do not show to
// every user of the host; the mode of the directory can keep it from them.
//
// Every file appears whole, by a rename. The sessions leave with the agent, the
// events stay until the host boots.
type publisher struct {
	dir      string // empty: nothing is published
	log      *slog.Logger
	sessions func(ctx context.Context, write func(rows []byte) error) (n int, err error)
	events   *EventStore
	changed  atomic.Bool

	complaints sync.Mutex // guards complaint, what was logged last
	complaint  string

	mu   sync.Mutex // guards the following
	told told

	// The following belong to run.
	last     told // what the sessions say
	count    int  // of sessions
	written  mono.Instant
	eventsOf told
	eventSeq uint64
	out      *bufio.Writer // kept for its memory
}

// publishedName is the beginning of the names of an instance's files. The extension
// makes the same one.
func publishedName(dataDirectory string) string {
	sum := sha256.Sum256([]byte(dataDirectory))
	return hex.EncodeToString(sum[:])[:32]
}

// setDirectory tells the instance's data directory, empty when the agent's role may
// not read it.
func (p *publisher) setDirectory(path string) {
	if path == "" && p.dir != "" {
		p.complain(errors.New("the role may not read data_directory: GRANT pg_monitor TO it"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told.directory = path
}

// setInstance tells which postmaster this is and whether kills are allowed.
func (p *publisher) setInstance(startUS int64, kills string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told.startUS, p.told.kills = startUS, kills
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) {
	if p.dir == "" {
		return
	}
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		p.publish(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	p.withdraw(p.last)
}

// publish writes what is due. It goes on after trouble, which may pass.
func (p *publisher) publish(ctx context.Context) {
	p.mu.Lock()
	now := p.told
	p.mu.Unlock()
	if now.directory == "" || now.startUS == 0 {
		return
	}
	if p.last.directory != now.directory {
		p.withdraw(p.last)
	}
	err := p.publishSessions(ctx, now)
	if err == nil {
		err = p.publishEvents(now)
	}
	if ctx.Err() == nil {
		p.complain(err)
	}
}

// complain logs trouble once, and its end.
func (p *publisher) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.complaints.Lock()
	defer p.complaints.Unlock()
	switch {
	case text == p.complaint:
		return
	case err != nil:
		args := []any{"err", err}
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			args = append(args, "expected", "a directory "+p.dir+" of the agent's user")
		}
		p.log.Warn("cannot tell the SQL extension: pgx_stat_watchdog stays empty", args...)
	default:
		p.log.Info("the SQL extension is told again")
	}
	p.complaint = text
}

// due reports whether the sessions are to be written.
func (p *publisher) due(now told, at mono.Instant) bool {
	age, crowd := at.Sub(p.written), time.Duration(p.count)
	switch {
	case p.last != now:
		return true
	case p.changed.Load():
		return age >= crowd*publishPace
	}
	return age >= publishFigures+crowd*figuresPace
}

func (p *publisher) publishSessions(ctx context.Context, now told) error {
	at := clock.Now()
	path := p.path(now, "sessions")
	if !p.due(now, at) {
		if err := stillTrue(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.eventsOf = told{} // somebody has cleaned up
	}
	p.changed.Store(false)
	count := 0
	err := p.replace(path, func(w io.Writer) (err error) {
		count, err = p.writeSessions(ctx, w, now)
		return err
	})
	if err != nil {
		p.changed.Store(true)
		return err
	}
	p.last, p.count, p.written = now, count, at
	return nil
}

func (p *publisher) publishEvents(now told) error {
	seq := p.events.Seq()
	if seq == p.eventSeq && p.eventsOf.directory == now.directory && p.eventsOf.startUS == now.startUS {
		return nil
	}
	err := p.replace(p.path(now, "events"), func(w io.Writer) error { return writeEvents(w, now, p.events) })
	if err == nil {
		p.eventSeq, p.eventsOf = seq, now
	}
	return err
}

func (p *publisher) path(of told, part string) string {
	return filepath.Join(p.dir, publishedName(of.directory)+"."+part+".json")
}

// withdraw takes the sessions back: nobody looks after them now.
func (p *publisher) withdraw(of told) {
	if of.directory != "" {
		_ = unix.Unlink(p.path(of, "sessions"))
	}
}

// stillTrue tells that what stands in a file has not changed.
func stillTrue(path string) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, unix.AT_SYMLINK_NOFOLLOW)
}
