// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

const (
	defaultTerminateTimeout = 10 * time.Second
	// statementTimeout bounds one question to the instance; its catalogs can be
	// locked by an administrator.
	statementTimeout = 5 * time.Second
	retryMin         = 100 * time.Millisecond
	retryMax         = 5 * time.Second
)

// Evidence is what the last look found.
type Evidence struct {
	HostAlive bool   // the host has answered since the last valid frame
	Text      string // what was seen, for the record
}

// SocketsResult is what became of the sockets of a warrant.
type SocketsResult struct {
	Found     int    // covered by the warrant
	Destroyed int    // of these, gone
	Left      int    // of these, still there when last looked at
	Spared    int    // of replication that is spared, or the agent's own
	Busy      int    // heard since the verdict: new, or left to the database steps
	Text      string // for the record
}

// and adds what a later execution for the same warrant did. It finds again what was
// left, unless that has gone by itself.
func (s SocketsResult) and(later SocketsResult) SocketsResult {
	later.Found = max(s.Found, s.Found-s.Left+later.Found)
	later.Destroyed += s.Destroyed
	if s.Text != "" {
		later.Text = s.Text + "; then " + later.Text
	}
	return later
}

// Sockets destroys the TCP sockets of a warrant: steps 1 and 2. It must not
// touch what the warrant does not cover, and returns when ctx ends. In a dry run
// it only counts. walsenders are the client ports of replication connections to
// be spared.
type Sockets interface {
	Destroy(ctx context.Context, w Warrant, walsenders []uint16) (SocketsResult, error)
}

// TerminatorConfig is what a [Terminator] works with.
type TerminatorConfig struct {
	// Connect opens the connection that the terminator keeps, with the rights to
	// see and to end sessions. Required.
	Connect func(context.Context) (*pgconn.PgConn, error)
	// Known reports that the operator hears of this failure to connect from
	// elsewhere; nil: never. Safe for concurrent use.
	Known func(error) bool
	// Timeout is watchdog.terminate_timeout: how long signalled sessions have to
	// go. 0 means 10 s.
	Timeout time.Duration
	// Protected is the last guard; nil protects nobody. Safe for concurrent use.
	Protected func(netip.Addr) bool
	// OwnPIDs returns the agent's other database sessions; nil for none. Safe for
	// concurrent use.
	OwnPIDs func() []uint32
	// LastLook is step 0. It returns when ctx ends. nil: not available, and the
	// record says so.
	LastLook func(context.Context, Warrant) (Evidence, error)
	// Sockets are steps 1 and 2; nil as above.
	Sockets Sockets
	// Done is told of each warrant once, unless the agent stops before. It is
	// called on the terminator's goroutine and must not block.
	Done func(Result)
	// Events gets the record; nil for none.
	Events *EventStore
	// Log is the audit log; nil discards.
	Log *slog.Logger
}

// Outcome is how a warrant ended.
type Outcome string

// Outcomes. The words stand in events.
const (
	OutcomeDone      Outcome = "done"       // nobody that the warrant covers is left
	OutcomeSurvivors Outcome = "survivors"  // some are, and named
	OutcomeClosed    Outcome = "closed"     // cancelled: the client came back, or kills were paused
	OutcomeDryRun    Outcome = "dry run"    // nobody was touched
	OutcomeHostAlive Outcome = "host alive" // the last look: ask [Docket.Alive]
	OutcomeProtected Outcome = "protected"  // the address is protected
	OutcomePaused    Outcome = "paused"     // no warrant: kills are paused; judged again after the pause
	OutcomeStuck     Outcome = "stuck"      // an interim record: cannot work, goes on trying
	OutcomeStopped   Outcome = "stopped"    // the agent stops; the client is judged after its start
)

// Result is what became of a warrant.
type Result struct {
	Warrant   Warrant
	Outcome   Outcome
	Backends  int // sessions that the warrant covered
	Ended     int // of these, gone when last looked at
	Newer     int // sessions of the address that began after the verdict
	Spared    int // replication that was spared
	Survivors []Survivor
	Evidence  Evidence
	Sockets   SocketsResult
	Joined    uint64 // warrant of the same address whose run did the work; 0: this one
	// Took is how long after the warrant was taken the result was there.
	Took time.Duration
	Err  error // what went wrong last, even when it was overcome
}

// Terminator executes warrants (design section 8.2) over one database
// connection that it opens at its start and keeps, so that it can work when
// max_connections is exhausted. A lost connection is noticed at once and opened
// again with backoff; warrants are kept meanwhile.
//
// All work is done by the goroutine that calls Run. Warrants of different
// addresses make progress side by side. Steps of a run:
//
//	taken -> last look -> sockets -> read -> kill -> verify ... -> recorded
//	              |         ^         ^  ^             |
//	              |         |         |  +-------------+ until none is left, or Timeout
//	              |         |         +-- no connection, no rights: tried again
//	              |         +-- a run that overlaps joins here
//	              v host alive
//	          recorded
//
// A run that overlaps another one of its address joins it after its own last
// look: the sockets and sessions until the later verdict are then ended by one
// run, and each warrant gets its record when that is done. Only warrants that
// differ in what they spare, or in whether they kill at all, wait for each other.
//
// The sessions are read once before the sockets go, when there is a connection:
// idle ones end by the loss of the socket, and the record names them all the same.
//
// A run is cancelled between two steps, two batches of kills, or two batches of
// sockets. The rest is left alone and reported.
//
// One race is left to PostgreSQL: a session may end between the read and the
// kill, and its pid be given to another within that millisecond.
type Terminator struct {
	cfg  TerminatorConfig
	log  *slog.Logger
	conn keptConn

	mu sync.Mutex // guards the following
	// inbox has the runs that Run has not seen yet.
	inbox []*run
	// byID has all runs that are not recorded.
	byID map[uint64]*run
	// wake ends the wait of Run.
	wake context.CancelFunc
	// release asks for the connection to be given up.
	release bool

	// Of the goroutine of Run. queue has the runs that have not looked yet, or
	// wait for the active one of their address.
	queue  []*run
	active map[netip.Addr]*run
}

// NewTerminator returns a terminator that does nothing before Run. It panics
// without Connect.
func NewTerminator(cfg TerminatorConfig) *Terminator {
	if cfg.Connect == nil {
		panic("watchdog: terminator without Connect")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTerminateTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Terminator{
		cfg: cfg, log: cfg.Log,
		conn:   keptConn{connect: cfg.Connect, known: cfg.Known, log: cfg.Log},
		byID:   make(map[uint64]*run),
		active: make(map[netip.Addr]*run),
	}
}

// Execute takes a warrant. It returns at once and may be called from any
// goroutine, before Run too. An id that is being executed is ignored.
func (t *Terminator) Execute(w Warrant) {
	now := clock.Now()
	r := newRun(w, now, time.Now())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[w.ID] != nil {
		return
	}
	t.byID[w.ID] = r
	t.inbox = append(t.inbox, r)
	t.wakeLocked()
}

// Cancel stops a warrant: nobody is signalled from the next batch on. Its
// result comes as usual. An unknown id is ignored.
func (t *Terminator) Cancel(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.byID[id]; r != nil {
		r.cancel()
		t.wakeLocked()
	}
}

// Release gives the connection up while there is nothing to execute: a smart
// shutdown of the instance waits for it. It is opened again when the instance
// accepts connections. It may be called from any goroutine.
func (t *Terminator) Release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release = true
	t.wakeLocked()
}

func (t *Terminator) wakeLocked() {
	if t.wake != nil {
		t.wake()
	}
}

// PID returns the terminator's database session, 0 while there is none. It may
// be called from any goroutine.
func (t *Terminator) PID() uint32 { return t.conn.pid.Load() }

// Run executes warrants until ctx ends; what is not done then is recorded as
// stopped. It returns ctx's error.
func (t *Terminator) Run(ctx context.Context) error {
	defer t.conn.close()
	written := make(chan struct{}, 1)
	var syncing sync.WaitGroup
	syncing.Go(func() { t.syncEvents(written) })
	defer syncing.Wait()
	defer close(written)
	for ctx.Err() == nil {
		t.accept()
		r := t.due(clock.Now(), (*run).needsNoDatabase)
		if r == nil {
			t.conn.ensure(ctx, clock.Now())
			r = t.due(clock.Now(), t.canGoOn)
		}
		if r != nil {
			t.step(ctx, r)
			continue
		}
		select {
		case written <- struct{}{}:
		default:
		}
		t.idle(ctx)
	}
	t.accept()
	t.stopAll()
	return ctx.Err()
}

// accept takes over new runs.
func (t *Terminator) accept() {
	t.mu.Lock()
	t.queue = append(t.queue, t.inbox...)
	t.inbox = nil
	release := t.release
	t.release = false
	t.mu.Unlock()
	if release && len(t.queue) == 0 && len(t.active) == 0 {
		t.conn.release(clock.Now())
	}
}

// due returns the run that has waited longest for its next step among those
// that can make one, nil when there is none.
func (t *Terminator) due(now mono.Instant, can func(*run) bool) *run {
	var first *run
	for r := range t.stepping() {
		ready := !r.due.After(now) && can(r) || r.cancelled()
		if ready && (first == nil || r.due.Before(first.due)) {
			first = r
		}
	}
	return first
}

// stepping yields the runs whose turn can come: not those that wait for another
// run of their address.
func (t *Terminator) stepping() iter.Seq[*run] {
	return func(yield func(*run) bool) {
		for _, r := range t.active {
			if !yield(r) {
				return
			}
		}
		for _, r := range t.queue {
			waits := r.phase != phaseLook && t.active[bareAddr(r.w.Addr)] != nil && !r.cancelled()
			if !waits && !yield(r) {
				return
			}
		}
	}
}

func (r *run) needsNoDatabase() bool { return r.phase < phaseRead }

// canGoOn: without a connection the next step of a run is to say so, once.
func (t *Terminator) canGoOn(r *run) bool {
	return r.needsNoDatabase() || t.conn.conn != nil || !r.reported
}

// idle sleeps until something is to be done: a call, a due run, a reconnect, or
// the loss of the connection.
func (t *Terminator) idle(ctx context.Context) {
	until := t.nextDue()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if until != mono.Never {
		ctx, cancel = context.WithTimeout(ctx, until.Sub(clock.Now()))
		defer cancel()
	}
	t.mu.Lock()
	if len(t.inbox) > 0 || t.release || t.cancelledLocked() {
		t.mu.Unlock()
		return
	}
	t.wake = cancel
	t.mu.Unlock()
	t.conn.watch(ctx)
	t.mu.Lock()
	t.wake = nil
	t.mu.Unlock()
}

func (t *Terminator) cancelledLocked() bool {
	for r := range t.stepping() {
		if r.cancelled() {
			return true
		}
	}
	return false
}

func (t *Terminator) nextDue() mono.Instant {
	next := mono.Never
	if t.conn.conn == nil {
		next = t.conn.retryAt
	}
	for r := range t.stepping() {
		if t.canGoOn(r) {
			next = next.Min(r.due)
		}
	}
	return next
}

// syncEvents sees records through to the disk after each token, and once more
// when the channel closes. It has a goroutine of its own: the next dead client
// must not wait for the disk.
func (t *Terminator) syncEvents(written <-chan struct{}) {
	if t.cfg.Events == nil {
		return
	}
	for open := true; open; {
		_, open = <-written
		if err := t.cfg.Events.Sync(); err != nil {
			t.log.Error("events not written", "err", err)
		}
	}
}
