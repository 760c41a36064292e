// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	lostHost  = "127.0.0.2"
	otherHost = "127.0.0.3"
)

// bench is a cluster with a terminator that runs as an ordinary role.
type bench struct {
	*scratchCluster
	admin   *scratchSession
	term    *Terminator
	events  *EventStore
	results chan Result
	lastID  uint64
	mu      sync.Mutex // guards lines
	lines   strings.Builder
	stop    func()
}

// Write collects the terminator's log.
func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *bench) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.String()
}

func newBench(t *testing.T, grants string, change func(*TerminatorConfig), settings ...string) *bench {
	t.Helper()
	return newBenchOn(scratchStart(t, settings...), grants, change)
}

// newBenchOn is newBench on a cluster that runs.
func newBenchOn(c *scratchCluster, grants string, change func(*TerminatorConfig)) *bench {
	t := c.t
	t.Helper()
	b := &bench{scratchCluster: c, results: make(chan Result, 100)}
	b.admin = b.mustAdmin()
	b.admin.mustExec("CREATE ROLE agent LOGIN; CREATE ROLE app LOGIN; CREATE ROLE boss LOGIN SUPERUSER;" +
		"CREATE ROLE repl LOGIN REPLICATION; CREATE TABLE t (i int); INSERT INTO t VALUES (1); GRANT ALL ON t TO app")
	if grants != "" {
		b.admin.mustExec("GRANT " + grants + " TO agent")
	}
	var err error
	if b.events, err = OpenEvents(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	cfg := TerminatorConfig{
		Connect: func(ctx context.Context) (*pgconn.PgConn, error) { return b.local(ctx, "agent") },
		Done:    func(r Result) { b.results <- r },
		Events:  b.events,
		Log:     slog.New(slog.NewTextHandler(b, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	b.term = NewTerminator(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.term.Run(ctx) })
	b.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(b.stop)
	if !strings.Contains(t.Name(), "Full") {
		scratchEventually(t, "terminator connected", func() bool { return b.term.PID() != 0 })
	}
	return b
}

const allRights = "pg_read_all_stats, pg_signal_backend"

// warrant writes one for an address, with the verdict now.
func (b *bench) warrant(addr string, c Case) Warrant {
	b.lastID++
	now := clock.Now()
	return Warrant{
		ID: b.lastID, Addr: netip.MustParseAddr(addr), Case: c, Reason: wire.ReasonTimeout, Session: 7,
		Generation: 1, LastValid: now.Add(-150 * time.Millisecond), Verdict: now, Issued: now,
		Timeout: 150 * time.Millisecond, Interval: 50 * time.Millisecond, Replication: !c.HostAlive(),
	}
}

func (b *bench) result() Result {
	b.t.Helper()
	select {
	case r := <-b.results:
		return r
	case <-time.After(30 * time.Second):
		b.t.Fatalf("no result\n%s", b.logged())
		return Result{}
	}
}

func (b *bench) wantOutcome(r Result, want Outcome, backends, ended int) {
	b.t.Helper()
	if r.Outcome != want || r.Backends != backends || r.Ended != ended || len(r.Survivors) != backends-ended {
		b.t.Errorf("result %+v: want %s, %d backends, %d ended\n%s", r, want, backends, ended, b.logged())
	}
}

func (b *bench) count(where string) int {
	b.t.Helper()
	var n int
	_, err := fmt.Sscan(b.admin.mustValue("SELECT count(*) FROM pg_stat_activity WHERE "+where), &n)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// TestTerminatorStates ends sessions of the lost host whatever they are doing,
// and nobody else's.
func TestTerminatorStates(t *testing.T) {
	b := newBench(t, allRights, nil)
	b.admin.mustExec("CREATE TABLE held (i int); CREATE TABLE blocked (i int); GRANT ALL ON held, blocked TO app")
	for i := range 3 {
		b.mustClient(lostHost, "app").mustExec(fmt.Sprintf("SET application_name = 'idle %d'", i))
	}
	b.mustClient("::1", "app")
	holder := b.mustClient(lostHost, "app")
	holder.mustExec("BEGIN; LOCK TABLE held")
	strange := b.mustClient(otherHost, "app")
	strange.mustExec("BEGIN; LOCK TABLE blocked")
	first := b.mustClient("127.0.0.1", "app")

	busy := b.mustClient(lostHost, "app")
	busyDone := busy.background("SELECT sum(sqrt(i)) FROM generate_series(1, 2000000000) i")
	waiter := b.mustClient(lostHost, "app")
	waiterDone := waiter.background("SELECT * FROM blocked")
	sleeper := b.mustClient(lostHost, "app")
	sleeperDone := sleeper.background("SELECT pg_sleep(1000)")
	copier := b.mustClient(lostHost, "app")
	copyDone := make(chan error, 1)
	feed, end := io.Pipe()
	defer end.Close()
	go func() {
		_, err := copier.CopyFrom(context.Background(), feed, "COPY t FROM STDIN")
		copyDone <- err
	}()
	blocked := b.mustClient(otherHost, "app")
	blockedDone := blocked.background("SELECT * FROM held")
	scratchEventually(t, "all at work", func() bool {
		return b.count("client_addr = '127.0.0.2' AND (state = 'active')") == 4 &&
			strings.Contains(b.admin.scratchState(blocked.PID()), "Lock")
	})

	w := b.warrant(lostHost, CaseTimeout)
	verdict := time.Now()
	b.term.Execute(w)
	// The strangers' session gets the lock as soon as it is free.
	if err := <-blockedDone; err != nil {
		t.Errorf("blocked session: %v", err)
	}
	free := time.Since(verdict)
	b.wantOutcome(b.result(), OutcomeDone, 8, 8)
	t.Logf("verdict to lock free: %v", free)
	for name, done := range map[string]<-chan error{"busy": busyDone, "lock": waiterDone, "sleep": sleeperDone} {
		if err := <-done; !scratchEnded(err) {
			t.Errorf("%s: %v: want the end of the session", name, err)
		}
	}
	_ = end.Close()
	if err := <-copyDone; !scratchEnded(err) {
		t.Errorf("copy: %v: want the end of the session", err)
	}
	if n := b.count("client_addr = '127.0.0.2'"); n != 0 {
		t.Errorf("%d sessions of the lost host are left", n)
	}
	if !strange.alive() || !first.alive() || b.count("client_addr = '::1'") != 1 {
		t.Error("a stranger was touched")
	}
	latest := b.events.Latest(1)
	if len(latest) != 1 || latest[0].Outcome != "done" || latest[0].Backends != 8 || latest[0].SilenceMS != 150 ||
		latest[0].Evidence == "" || latest[0].Sockets == "" ||
		len(latest[0].PIDs) != 8 || !slices.IsSorted(latest[0].PIDs) || latest[0].PIDs[0] <= 0 || latest[0].StepsMS["terminate"] <= 0 {
		t.Errorf("event %+v", latest)
	}
}

// TestTerminatorMapped takes an IPv4-mapped address for the same host.
func TestTerminatorMapped(t *testing.T) {
	b := newBench(t, allRights, nil)
	b.mustClient(lostHost, "app")
	other := b.mustClient(otherHost, "app")
	b.term.Execute(b.warrant("::ffff:"+lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
	if !other.alive() {
		t.Error("a stranger was touched")
	}
}

func TestTerminatorIPv6(t *testing.T) {
	b := newBench(t, allRights, nil)
	b.mustClient("::1", "app")
	b.mustClient(lostHost, "app")
	b.term.Execute(b.warrant("::1", CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
	if b.count("client_addr = '127.0.0.2'") != 1 {
		t.Error("a stranger was touched")
	}
}

// TestTerminatorSuperuser names what it may not end, and ends the rest.
func TestTerminatorSuperuser(t *testing.T) {
	b := newBench(t, allRights, nil)
	boss := b.mustClient(lostHost, "boss")
	for range 3 {
		b.mustClient(lostHost, "app")
	}
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	r := b.result()
	b.wantOutcome(r, OutcomeSurvivors, 4, 3)
	if r.Err != nil {
		t.Errorf("%v: want the rest ended in the same pass", r.Err)
	}
	if s := r.Survivors[0]; s.PID != int32(boss.PID()) || s.User != "boss" || !strings.Contains(s.Why, "42501") || !strings.Contains(s.Why, "superuser") {
		t.Errorf("survivor %+v", s)
	}
	if !boss.alive() {
		t.Error("the superuser's session is gone")
	}
	if !strings.Contains(b.logged(), "level=ERROR") {
		t.Errorf("no ERROR for a survivor:\n%s", b.logged())
	}
}

// TestTerminatorRights refuses to report success when it cannot see, and
// succeeds as soon as it can.
func TestTerminatorRights(t *testing.T) {
	b := newBench(t, "", nil)
	client := b.mustClient(lostHost, "app")
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	scratchEventually(t, "an interim record", func() bool { return len(b.events.Latest(1)) == 1 })
	if e := b.events.Latest(1)[0]; e.Outcome != string(OutcomeStuck) || !strings.Contains(e.Err, "pg_read_all_stats") {
		t.Errorf("event %+v", e)
	}
	if !client.alive() || len(b.results) != 0 {
		t.Fatal("without rights: a result, or a kill")
	}
	b.admin.mustExec("GRANT pg_read_all_stats TO agent")
	r := b.result()
	b.wantOutcome(r, OutcomeSurvivors, 1, 0)
	if !strings.Contains(r.Survivors[0].Why, "pg_signal_backend") {
		t.Errorf("survivor %+v", r.Survivors[0])
	}
	b.admin.mustExec("GRANT pg_signal_backend TO agent")
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
}

// TestTerminatorComeback leaves alone what began after the verdict.
func TestTerminatorComeback(t *testing.T) {
	b := newBench(t, allRights, nil)
	b.mustClient(lostHost, "app")
	w := b.warrant(lostHost, CaseTimeout)
	fresh := b.mustClient(lostHost, "app")
	b.term.Execute(w)
	r := b.result()
	b.wantOutcome(r, OutcomeDone, 1, 1)
	if r.Newer != 1 || !fresh.alive() {
		t.Errorf("newer %d, alive %v: want 1, true", r.Newer, fresh.alive())
	}
}

// TestTerminatorCancel stops a run that has not begun to kill.
func TestTerminatorCancel(t *testing.T) {
	looking, look := make(chan struct{}), make(chan struct{})
	b := newBench(t, allRights, func(c *TerminatorConfig) {
		c.LastLook = func(context.Context, Warrant) (Evidence, error) {
			close(looking)
			<-look
			return Evidence{Text: "silent"}, nil
		}
	})
	client := b.mustClient(lostHost, "app")
	w := b.warrant(lostHost, CaseTimeout)
	b.term.Execute(w)
	<-looking
	b.term.Cancel(w.ID)
	close(look)
	b.wantOutcome(b.result(), OutcomeClosed, 0, 0)
	if !client.alive() {
		t.Error("killed after the warrant was closed")
	}
}

// TestTerminatorHostAlive hands a warrant back that the last look disproves.
func TestTerminatorHostAlive(t *testing.T) {
	b := newBench(t, allRights, func(c *TerminatorConfig) {
		c.LastLook = func(context.Context, Warrant) (Evidence, error) {
			return Evidence{HostAlive: true, Text: "acknowledged 3 ms ago"}, nil
		}
	})
	client := b.mustClient(lostHost, "app")
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeHostAlive, 0, 0)
	if !client.alive() {
		t.Error("killed although the host is alive")
	}
	b.term.Execute(b.warrant(lostHost, CaseHang))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
}

func TestTerminatorDryRun(t *testing.T) {
	b := newBench(t, allRights, nil)
	client := b.mustClient(lostHost, "app")
	w := b.warrant(lostHost, CaseTimeout)
	w.DryRun = true
	b.term.Execute(w)
	r := b.result()
	b.wantOutcome(r, OutcomeDryRun, 1, 0)
	if !client.alive() || r.Survivors[0].Why != "dry run" {
		t.Errorf("survivors %+v", r.Survivors)
	}
}

func TestTerminatorProtected(t *testing.T) {
	b := newBench(t, allRights, func(c *TerminatorConfig) {
		c.Protected = func(a netip.Addr) bool { return a == netip.MustParseAddr(lostHost) }
	})
	client := b.mustClient(lostHost, "app")
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeProtected, 0, 0)
	if !client.alive() {
		t.Error("a protected address was touched")
	}
}

// TestTerminatorReplication ends walsenders of a silent host, and spares those
// of a live one.
func TestTerminatorReplication(t *testing.T) {
	b := newBench(t, allRights, nil)
	conn, err := b.dial(t.Context(), b.dsn(lostHost, "repl")+" replication=true", lostHost)
	if err != nil {
		t.Fatal(err)
	}
	b.session(conn)
	b.term.Execute(b.warrant(lostHost, CaseDisconnect))
	r := b.result()
	b.wantOutcome(r, OutcomeDone, 0, 0)
	if r.Spared != 1 || b.count("backend_type = 'walsender'") != 1 {
		t.Errorf("spared %d: want 1", r.Spared)
	}
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
}

// TestTerminatorOwn never ends the agent's own sessions, even when they come
// from an address that is not protected.
func TestTerminatorOwn(t *testing.T) {
	var own *scratchSession
	b := newBench(t, allRights, func(c *TerminatorConfig) {
		local := c.Connect
		c.Connect = func(ctx context.Context) (*pgconn.PgConn, error) {
			conn, err := local(ctx)
			if err != nil {
				return nil, err
			}
			socket := conn.Conn().RemoteAddr().String()
			_ = conn.Close(ctx)
			port := socket[strings.LastIndex(socket, ".")+1:]
			tcp, err := pgconn.ParseConfig("host=127.0.0.1 port=" + port + " user=agent dbname=postgres sslmode=disable")
			if err != nil {
				return nil, err
			}
			return pgconn.ConnectConfig(ctx, tcp)
		}
		c.OwnPIDs = func() []uint32 { return []uint32{own.PID()} }
	})
	own = b.mustClient("127.0.0.1", "agent")
	b.mustClient("127.0.0.1", "app")
	b.term.Execute(b.warrant("127.0.0.1", CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
	if !own.alive() || b.term.PID() == 0 {
		t.Error("the agent ended itself")
	}
}

// TestTerminatorFull works when max_connections is exhausted, because its
// connection is kept; without one it says so, keeps the warrant and works as
// soon as it can.
func TestTerminatorFull(t *testing.T) {
	b := newBench(t, allRights, nil, "max_connections = 8")
	scratchEventually(t, "terminator connected", func() bool { return b.term.PID() != 0 })
	fill := func(n int) (sessions []*scratchSession) {
		for range n {
			sessions = append(sessions, b.mustClient(lostHost, "app"))
		}
		return sessions
	}
	fill(4)
	if _, err := b.dial(t.Context(), b.dsn(otherHost, "app"), otherHost); err == nil || !strings.Contains(err.Error(), "53300") {
		t.Fatalf("not full: %v", err)
	}
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 4, 4)

	fill(4)
	pid := b.term.PID()
	b.admin.mustExec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	// The agent tries at once, so its slot is taken in a race with the filler.
	scratchEventually(t, "the slot is taken by a client", func() bool {
		if p := b.term.PID(); p != 0 && p != pid {
			b.admin.mustExec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", p))
		}
		conn, err := b.dial(t.Context(), b.dsn(otherHost, "app"), otherHost)
		if err == nil {
			b.session(conn)
		}
		return err == nil
	})
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	scratchEventually(t, "an interim record", func() bool { return b.events.Latest(1)[0].Outcome == string(OutcomeStuck) })
	if e := b.events.Latest(1)[0]; !strings.Contains(e.Err, "53300") {
		t.Errorf("event %+v: want SQLSTATE 53300", e)
	}
	b.admin.mustExec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_addr = '127.0.0.3'")
	b.wantOutcome(b.result(), OutcomeDone, 4, 4)
}

// TestTerminatorSurvivor names a session that does not end in time, and other
// addresses do not wait for it.
func TestTerminatorSurvivor(t *testing.T) {
	b := newBench(t, allRights, func(c *TerminatorConfig) { c.Timeout = 700 * time.Millisecond })
	stuck := b.mustClient(lostHost, "app")
	b.mustClient(otherHost, "app")
	scratchFreeze(t, int(stuck.PID()))
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.term.Execute(b.warrant(otherHost, CaseTimeout))
	b.wantOutcome(b.result(), OutcomeDone, 1, 1)
	r := b.result()
	b.wantOutcome(r, OutcomeSurvivors, 1, 0)
	if r.Took < 700*time.Millisecond || r.Survivors[0].Why != "signalled, but did not end in time" {
		t.Errorf("took %v, survivors %+v", r.Took, r.Survivors)
	}
}

// TestTerminatorRestart keeps a warrant over a restart of the instance.
func TestTerminatorRestart(t *testing.T) {
	b := newBench(t, allRights, nil)
	b.mustClient(lostHost, "app")
	b.run("pg_ctl", "-D", b.dir+"/data", "-w", "-m", "immediate", "stop")
	scratchEventually(t, "the loss is noticed", func() bool { return b.term.PID() == 0 })
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	scratchEventually(t, "an interim record", func() bool { return len(b.events.Latest(1)) == 1 })
	b.run("pg_ctl", "-D", b.dir+"/data", "-w", "-l", b.dir+"/log", "start")
	b.wantOutcome(b.result(), OutcomeDone, 0, 0)
}

// TestTerminatorStops records what it leaves behind, and tells nobody that it
// is done.
func TestTerminatorStops(t *testing.T) {
	b := newBench(t, "", nil)
	b.term.Execute(b.warrant(lostHost, CaseTimeout))
	b.stop()
	if e := b.events.Latest(1); len(e) != 1 || e[0].Outcome != string(OutcomeStopped) || len(b.results) != 0 {
		t.Errorf("events %+v, %d results", e, len(b.results))
	}
}
