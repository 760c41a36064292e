// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// staged is a terminator whose kernel and instance are scripted: the instance has
// one client backend and one walsender, which do not end before they are told to.
type staged struct {
	*scripted
	term    *Terminator
	events  *EventStore
	results chan Result
	born    int64 // backend_start of the sessions, in µs

	mu      sync.Mutex // guards the following
	steps   []string   // in order
	alive   bool       // what the last look finds
	fragile bool       // the sessions end with their sockets
	ended   bool       // the sessions
	verdict Warrant    // of the last destroy
	spared  []uint16
	sockets int // not destroyed yet, at most perRound each time; 0: two, once; -1: one that stays
}

const perRound = 4

func stage(t *testing.T, change func(*TerminatorConfig)) *staged {
	t.Helper()
	s := &staged{results: make(chan Result, 10), born: time.Now().Add(-time.Hour).UnixMicro(), events: mustEvents(t, t.TempDir(), eventsMaxBytes)}
	s.scripted = &scripted{t: t, answer: s.reply}
	cfg := TerminatorConfig{
		Connect: s.connect, LastLook: s.look, Sockets: s, Events: s.events,
		Done: func(r Result) { s.results <- r },
	}
	if change != nil {
		change(&cfg)
	}
	s.term = NewTerminator(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.term.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func (s *staged) reply(b *pgproto3.Backend, _ int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named.Load() == killName {
		s.steps = append(s.steps, "kill")
		sendRow(b, "t")
		return
	}
	micros := strconv.FormatInt(time.Now().UnixMicro(), 10)
	if s.ended || s.executes.Load() == 1 { // the first one prepares
		sendRow(b, micros, "1", "true", "NULL", "NULL", "NULL", "NULL", "NULL", "false", "NULL")
		return
	}
	s.steps = append(s.steps, "read")
	old := strconv.FormatInt(s.born, 10)
	sendRows(b, []string{micros, "1", "true", "5", old, "u", "40000", "client backend", "false", "192.0.2.1"},
		[]string{micros, "1", "true", "6", old, "u", "41000", "walsender", "false", "192.0.2.1"})
}

func sendRows(b *pgproto3.Backend, rows ...[]string) {
	fields := make([]pgproto3.FieldDescription, len(rows[0]))
	for i := range fields {
		fields[i].Name = []byte("c")
	}
	b.Send(&pgproto3.RowDescription{Fields: fields})
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			values[i] = []byte(v)
		}
		b.Send(&pgproto3.DataRow{Values: values})
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "SELECT %d", len(rows))})
}

func (s *staged) look(context.Context, Warrant) (Evidence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, "look")
	return Evidence{HostAlive: s.alive, Text: "looked"}, nil
}

// Destroy implements Sockets.
func (s *staged) Destroy(_ context.Context, w Warrant, walsenders []uint16) (SocketsResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, "sockets")
	s.verdict, s.spared = w, walsenders
	s.ended = s.ended || s.fragile
	if s.sockets == 0 {
		return SocketsResult{Found: 2, Destroyed: 2, Text: "2 destroyed"}, nil
	}
	if s.sockets < 0 {
		return SocketsResult{Found: 1, Left: 1}, context.DeadlineExceeded
	}
	n := min(s.sockets, perRound)
	r := SocketsResult{Found: s.sockets, Destroyed: n, Left: s.sockets - n}
	if s.sockets -= n; r.Left > 0 {
		return r, context.DeadlineExceeded
	}
	return r, nil
}

// set changes what the script says from now on.
func (s *staged) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *staged) count(step string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, done := range s.steps {
		if done == step {
			n++
		}
	}
	return n
}

func (s *staged) result() Result {
	s.t.Helper()
	select {
	case r := <-s.results:
		return r
	case <-time.After(20 * time.Second):
		s.t.Fatal("no result")
		return Result{}
	}
}

// wantResults waits for one result of each warrant, in any order.
func (s *staged) wantResults(want map[uint64]Outcome) {
	s.t.Helper()
	got := map[uint64]Outcome{}
	for range want {
		r := s.result()
		got[r.Warrant.ID] = r.Outcome
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("outcomes %v: want %v", got, want)
	}
}

func stagedWarrant(id uint64, c Case) Warrant {
	return Warrant{ID: id, Addr: netip.MustParseAddr("192.0.2.1"), Case: c, Verdict: clock.Now(), Replication: !c.HostAlive()}
}
