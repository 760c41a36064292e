// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ended is a session that ended although nobody died.
type ended struct {
	At      time.Time `json:"at"`
	Session string    `json:"session"`
	Error   string    `json:"error"`
}

// audience are the applications of the client host.
type audience struct {
	w        *world
	log      io.Writer
	sessions []*session
	running  sync.WaitGroup

	mu    sync.Mutex // guards the following
	ended []ended
	taken int // of ended, see takeEnded
}

func newAudience(w *world, log io.Writer) *audience {
	a := &audience{w: w, log: log}
	add := func(name string, kind kind, direct bool) {
		a.sessions = append(a.sessions, &session{name: name, kind: kind, direct: direct})
	}
	add("pass-through, idle", idle, false)
	add("pass-through, idle in transaction", inTransaction, false)
	add("pass-through, asking", asking, false)
	add("console after TARGET any", console, false)
	add("past conmgr, idle", idle, true)
	add("past conmgr, asking", asking, true)
	return a
}

// start opens every session and watches it until ctx ends; see wait.
func (a *audience) start(ctx context.Context) error {
	for _, s := range a.sessions {
		if err := a.open(ctx, s); err != nil {
			return err
		}
	}
	for _, s := range a.sessions {
		a.running.Go(func() { a.run(ctx, s) })
	}
	a.running.Go(func() { a.watchBackends(ctx) })
	return nil
}

// wait waits until all have seen the end of their context.
func (a *audience) wait() { a.running.Wait() }

// open connects, again and again for a while: at first conmgr does not know its
// instance yet.
func (a *audience) open(ctx context.Context, s *session) error {
	const patience, pause = time.Minute, 100 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; {
		err := s.open(ctx, a.w)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("%s: %w", s.name, err)
		}
		<-tick.C
	}
}

// run watches a session, and opens it again when it has ended.
func (a *audience) run(ctx context.Context, s *session) {
	for {
		err := s.watch(ctx)
		s.close()
		if ctx.Err() != nil {
			return
		}
		a.note(s, err)
		if err := a.open(ctx, s); err != nil {
			if ctx.Err() == nil {
				a.note(s, err)
			}
			return
		}
	}
}

func (a *audience) note(s *session, err error) {
	e := ended{At: time.Now().UTC(), Session: s.name, Error: err.Error()}
	if s.backendGone() {
		e.Error = "its backend is gone: " + e.Error
	}
	fmt.Fprintf(a.log, "%s: %s ended: %s\n", e.At.Format(time.TimeOnly), e.Session, e.Error)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = append(a.ended, e)
}

// takeEnded returns how many sessions have ended since it was called last.
func (a *audience) takeEnded() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.ended) - a.taken
	a.taken = len(a.ended)
	return n
}

// all returns what has ended.
func (a *audience) all() []ended {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ended)
}

// watchBackends looks every second whether the server still has the sessions: a
// client may not learn for long that its own is gone.
func (a *audience) watchBackends(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := a.checkBackends(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(a.log, "pg_stat_activity:", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (a *audience) checkBackends(ctx context.Context) error {
	expected := make(map[*session]uint32)
	for _, s := range a.sessions {
		if pid := s.backend(); pid != 0 {
			expected[s] = pid
		}
	}
	pids, err := a.w.instance.Query(ctx, "SELECT pid::text FROM pg_stat_activity WHERE client_addr IS NOT NULL")
	if err != nil {
		return err
	}
	for s, pid := range expected {
		if !slices.Contains(pids, strconv.Itoa(int(pid))) {
			s.lost(pid)
		}
	}
	return nil
}
