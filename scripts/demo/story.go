// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// figures are what the summary repeats: times since the last heartbeat.
type figures struct {
	slowestError time.Duration // until the last application had its error
	backendsGone time.Duration
	lockFree     time.Duration
	firstWrite   time.Duration // since the promotion was asked for
}

// What the client's applications are in the two acts.
var (
	working = [2]string{"writer  (pgx)", "report  (psql)"}
	locking = [2]string{"writer  (pgx)", "psql, holds a lock"}
)

var errInterrupted = errors.New("interrupted")

// run tells the whole story and cleans up, whatever happens.
func run(ctx context.Context, o options, s *screen) (err error) {
	begin := time.Now()
	s.printf("%s\n", s.paint(bold, "pgconmgr: a dead host is noticed on both sides"))
	s.step("heartbeat_interval %v, heartbeat_timeout %v; Linux %s", o.interval, o.timeout, kernel())
	w, err := newWorld(ctx, o, s)
	defer func() {
		switch {
		case ctx.Err() != nil:
			err = errInterrupted
		case err != nil:
			w.showLogs()
		}
		err = errors.Join(err, w.close())
		if err == nil {
			s.gap()
			s.printf("%s in %.1f s; nothing is left behind\n", s.paint(green, "All of it happened,"), time.Since(begin).Seconds())
		}
	}()
	if err != nil {
		return err
	}
	return w.tell()
}

func kernel() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail with a good pointer
	return unix.ByteSliceToString(u.Release[:])
}

func (w *world) tell() error {
	w.head("A client host and two database hosts, each a network namespace")
	if err := w.start(); err != nil {
		return err
	}
	var f figures
	a, err := w.serverDies(&f)
	if err != nil {
		return err
	}
	if err := w.clientDies(a, &f); err != nil {
		return err
	}
	w.summary(&f)
	return nil
}

// serverDies is the first act: the primary's host vanishes under a writer and a
// long query.
func (w *world) serverDies(f *figures) (*writer, error) {
	err := w.primary.Exec(w.ctx, `CREATE TABLE ledger (n bigint, at timestamptz DEFAULT now());
		CREATE TABLE accounts (id int, balance numeric); INSERT INTO accounts VALUES (1, 100)`)
	if err != nil {
		return nil, err
	}
	a := w.startWriter()
	first, err := await(w, "the writer's first insert", a.turns)
	if err != nil {
		return nil, err
	}
	if first.server != w.db1.Addr4.String() {
		return nil, fmt.Errorf("the writer's first turn is %+v, expected one on db1", first)
	}
	report, err := w.startReport()
	if err != nil {
		return nil, err
	}
	if err := w.until("100 rows", func(context.Context) (bool, error) { return a.rows.Load() >= 100, nil }); err != nil {
		return nil, err
	}
	if err := w.untilFound(w.standby, "rows on the standby", "SELECT FROM ledger"); err != nil {
		return nil, err
	}
	w.head("Two applications work on the primary, through localhost:%d", portPrimary)
	w.step("writer  pgx, an INSERT every %v: %d rows so far", pause, a.rows.Load())
	w.step("report  psql -h localhost -p %d -c 'SELECT pg_sleep(3600)'", portPrimary)
	if err := w.showInstances("monitored primary", "monitored standby"); err != nil {
		return nil, err
	}
	w.picture(scene{apps: working, servers: [2]server{{"db1", "primary", true, false}, {"db2", "standby", false, false}}})
	return a, w.loseServer(a, report, f)
}

// loseServer cuts db1 off, promotes db2 once the applications have their errors,
// and prints what happened when.
func (w *world) loseServer(a *writer, report <-chan end, f *figures) error {
	w.head("db1 vanishes: every packet is dropped, no FIN, no RST, nobody is told")
	cut, err := w.db1.Cut(w.ctx)
	if err != nil {
		return err
	}
	lost, err := await(w, "the writer's error", a.turns)
	if err != nil {
		return err
	}
	if lost.err == nil {
		return fmt.Errorf("the writer connected to %s, expected an error", lost.server)
	}
	query, err := await(w, "the error of the long query", report)
	if err != nil {
		return err
	}
	if query.err == nil {
		return errors.New("the long query ended without an error")
	}
	t := &timeline{timeout: w.timeout}
	if t.zero, err = lastBeat(w.atClient, w.db1); err != nil {
		return err
	}
	silence, err := w.faultSilence()
	if err != nil {
		return err
	}
	t.add(moment{at: t.zero, what: "last heartbeat of db1 reaches the client"})
	t.add(moment{at: cut.After, what: "db1 is cut off", style: red, note: "dead"})
	t.record(silence, "conmgr's own record of its verdict")
	t.verdict(lost.at, "writer has its error", lost.err.Error())
	t.verdict(query.at, "psql has its error", query.text)
	f.slowestError = max(t.since(lost.at), t.since(query.at))
	w.picture(scene{apps: working, servers: [2]server{{"db1", "primary", true, true}, {"db2", "standby", false, false}}})
	if err := w.showInstances("faulted primary", "monitored standby"); err != nil {
		return err
	}
	if err := w.promote(a, t, f); err != nil {
		return err
	}
	t.show(w.screen)
	return t.err()
}

// promote promotes db2 and waits for the writer to be on it.
func (w *world) promote(a *writer, t *timeline, f *figures) error {
	w.head("db2 is promoted: by you, Patroni, repmgr, ...; pgconmgr only notices")
	promoted, err := w.standby.Promote(w.ctx)
	if err != nil {
		return err
	}
	again, err := await(w, "the writer's first insert on db2", a.turns)
	if err != nil {
		return err
	}
	if again.server != w.db2.Addr4.String() {
		return fmt.Errorf("the writer is on %q (%w), expected db2", again.server, again.err)
	}
	f.firstWrite = again.at.Sub(promoted.Before)
	t.add(moment{at: promoted.Before, what: "pg_promote() on db2"})
	t.add(moment{at: again.at, what: "writer's first row on db2, by itself", style: green,
		note: fmt.Sprintf("promotion + %s ms", millis(f.firstWrite))})
	return w.showInstances("faulted primary", "monitored primary")
}

// clientDies is the second act: the client's host vanishes with a lock held.
func (w *world) clientDies(a *writer, f *figures) error {
	w.head("A psql on the client locks a table on db2 and idles; others must wait")
	if err := w.startLocker(); err != nil {
		return err
	}
	w.step("client  psql: BEGIN; LOCK TABLE accounts;   (and the writer: %d rows)", a.rows.Load())
	waiter, err := w.startWaiter()
	if err != nil {
		return err
	}
	w.step("db2     another session: UPDATE accounts ...;   waits for the lock")
	w.picture(scene{apps: locking, servers: [2]server{{"db1", "", false, true}, {"db2", "primary", true, false}}})
	return w.loseClient(waiter, f)
}

// loseClient cuts the client off and watches its backends from another session.
func (w *world) loseClient(waiter <-chan end, f *figures) error {
	backends, err := w.backends(w.ctx)
	if err != nil {
		return err
	}
	w.head("The client vanishes in the same way")
	cut, err := w.client.Cut(w.ctx)
	if err != nil {
		return err
	}
	gone, err := w.awaitGone()
	if err != nil {
		return err
	}
	free, err := await(w, "the lock for the waiting session", waiter)
	if err != nil {
		return err
	}
	if free.err != nil {
		return fmt.Errorf("the session that waited for the lock: %w", free.err)
	}
	t := &timeline{timeout: w.timeout}
	if t.zero, err = lastBeat(w.atDB2, w.client); err != nil {
		return err
	}
	if err := w.addAgent(t, backends); err != nil {
		return err
	}
	t.add(moment{at: t.zero, what: "last heartbeat of the client reaches db2"})
	t.add(moment{at: cut.After, what: "the client is cut off", style: red, note: "dead"})
	t.verdict(gone, fmt.Sprintf("its %d backends are gone", backends), "")
	t.verdict(free.at, "the lock is free: the UPDATE is done", "")
	f.backendsGone, f.lockFree = t.since(gone), t.since(free.at)
	w.picture(scene{apps: locking, clientDead: true, servers: [2]server{{"db1", "", false, true}, {"db2", "primary", true, false}}})
	t.show(w.screen)
	return t.err()
}

// addAgent adds what the agent has recorded of its own deed.
func (w *world) addAgent(t *timeline, backends int) error {
	return w.until("the agent's record", func(context.Context) (bool, error) {
		e, err := w.agentEvent()
		if err != nil || e == nil {
			return false, err
		}
		if e.Ended != backends || e.SurvivorsTotal != 0 {
			return false, fmt.Errorf("%d of %d ended, %d survive; expected all %d to end", e.Ended, e.Backends, e.SurvivorsTotal, backends)
		}
		t.record(time.Duration(e.SilenceMS)*time.Millisecond, "pgwatchdog's own record of its verdict")
		return true, nil
	})
}

const backendsSQL = "SELECT count(*) FROM pg_stat_activity WHERE client_addr = $1"

func (w *world) backends(ctx context.Context) (n int, err error) {
	conn, err := w.standby.Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer closeSoon(conn)
	err = conn.QueryRow(ctx, backendsSQL, w.client.Addr4).Scan(&n)
	if err == nil && n == 0 {
		err = errors.New("the client has no backend on db2")
	}
	return n, err
}

// awaitGone returns when a session of db2 itself saw no backend of the client.
func (w *world) awaitGone() (at mono.Instant, err error) {
	conn, err := w.standby.Connect(w.ctx)
	if err != nil {
		return 0, err
	}
	defer closeSoon(conn)
	err = w.until("the end of the client's backends", func(ctx context.Context) (bool, error) {
		var n int
		err := conn.QueryRow(ctx, backendsSQL, w.client.Addr4).Scan(&n)
		at = clock.Now()
		return n == 0, err
	})
	return at, err
}

func (w *world) summary(f *figures) {
	w.head("What TCP alone needs (Linux's defaults), and what it took (timeout %v)", w.timeout)
	for _, line := range []struct {
		what, tcp string
		took      time.Duration
	}{
		{"server dead: writer and blocked query have errors", "15 min, 2 h", f.slowestError},
		{"client dead: all its backends are gone", "2 h", f.backendsGone},
		{"client dead: its lock is free", "2 h", f.lockFree},
		{"promotion to the writer's first row on db2", "-", f.firstWrite},
	} {
		w.printf("  %s %12s  %s\n", pad(line.what, 50), line.tcp, w.paint(green, fmt.Sprintf("%9s ms", millis(line.took))))
	}
}

// showLogs prints the last lines of the daemons when the demo has failed.
func (w *world) showLogs() {
	if w.conmgr == nil {
		return
	}
	paths := map[string]string{"conmgr": w.conmgr.Dir + "/conmgr.log"}
	if p, err := w.db2.Process(w.standby.Name + "-watchdog"); err == nil {
		paths["pgwatchdog on db2"] = p.LogPath
	}
	for name, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		w.head("Last lines of %s", name)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for _, line := range lines[max(0, len(lines)-6):] {
			w.step("%s", line)
		}
	}
}
