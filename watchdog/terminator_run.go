// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// killBatch is how many sessions are signalled between two looks at whether
// the warrant is still open.
const killBatch = 64

var (
	errConnClosed = errors.New("connection is closed")
	errNoConn     = errors.New("no connection to the instance")
)

// phase is the next step of a run.
type phase uint8

const (
	phaseLook phase = iota
	phaseSockets
	phaseRead
)

// target is a session that a warrant covers.
type target struct {
	backend
	signalled bool
	refused   bool // 42501: trying again is of no use
	gone      bool
	err       error
	helper    error // why the extension's helper did not end a superuser's session
}

// run is the execution of one warrant. But for stop it belongs to the goroutine
// of [Terminator.Run].
type run struct {
	w         Warrant
	taken     mono.Instant
	takenWall time.Time
	stop      atomic.Bool

	// halt ends what must not go on when the run is cancelled.
	halt     context.Context
	stopWork context.CancelFunc

	// joined are other runs of the address that this one does the work of.
	joined []*run
	lead   uint64 // the warrant that did the work; 0: this one

	phase    phase
	due      mono.Instant
	looks    int // of verify, so far
	backoff  time.Duration
	deadline mono.Instant // of verify; zero when not verifying
	begun    bool         // the first signal was sent
	losses   int          // connections lost under it

	targets    map[sessionKey]*target
	newer      int
	spared     int
	walsenders []uint16 // client ports of replication to be spared
	evidence   Evidence
	sockets    SocketsResult
	again      bool               // some sockets were destroyed, and some left
	steps      map[string]float64 // ms
	err        error
	reported   bool // an interim record was written
}

func newRun(w Warrant, now mono.Instant, wall time.Time) *run {
	r := &run{
		w: w, taken: now, takenWall: wall, due: now,
		targets: make(map[sessionKey]*target), steps: make(map[string]float64),
	}
	r.halt, r.stopWork = context.WithCancel(context.Background())
	return r
}

func (r *run) cancel() {
	r.stop.Store(true)
	r.stopWork()
}

// stopped reports whether the run's own warrant is cancelled.
func (r *run) stopped() bool { return r.stop.Load() }

// cancelled reports whether a warrant of the run is, so that it has to stop and
// see what is left of it.
func (r *run) cancelled() bool { return r.stopped() || slices.ContainsFunc(r.joined, (*run).stopped) }

// working bounds a step that may be cut short: by time, and by a cancelled
// warrant.
func (r *run) working(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	stops := []func() bool{context.AfterFunc(r.halt, cancel)}
	for _, j := range r.joined {
		stops = append(stops, context.AfterFunc(j.halt, cancel))
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// timed adds the time since start to a step.
func (r *run) timed(step string, start mono.Instant) {
	r.steps[step] += float64(clock.Now().Sub(start)) / float64(time.Millisecond)
}

// left returns the targets that were there when last looked at, by pid.
func (r *run) left() []*target {
	var left []*target
	for _, t := range r.targets {
		if !t.gone {
			left = append(left, t)
		}
	}
	slices.SortFunc(left, func(a, b *target) int { return cmp.Compare(a.pid, b.pid) })
	return left
}

// step does the next step of a run.
func (t *Terminator) step(ctx context.Context, r *run) {
	switch {
	case r.cancelled():
		t.closeCancelled(r)
	case t.cfg.Protected != nil && t.cfg.Protected(r.w.Addr):
		t.finish(r, OutcomeProtected)
	case r.phase == phaseLook:
		t.lastLook(ctx, r)
	case t.active[bareAddr(r.w.Addr)] != r:
		t.enter(r)
	case r.phase == phaseSockets:
		t.destroySockets(ctx, r)
	case t.conn.conn == nil:
		t.failed(r, t.conn.err)
	default:
		t.readAndKill(ctx, r)
	}
}

// lastLook is step 0. Trouble with it is recorded and stops nothing.
func (t *Terminator) lastLook(ctx context.Context, r *run) {
	r.phase = phaseSockets
	if t.cfg.LastLook == nil {
		r.evidence.Text = "last look not available"
		t.enter(r)
		return
	}
	start := clock.Now()
	ctx, cancel := r.working(ctx)
	defer cancel()
	evidence, err := t.cfg.LastLook(ctx, r.w)
	r.timed("look", start)
	r.evidence = evidence
	if err != nil {
		r.err = err
		r.evidence.Text = strings.TrimPrefix(evidence.Text+"; last look: "+err.Error(), "; ")
	}
	if evidence.HostAlive && !r.w.Case.HostAlive() {
		t.finish(r, OutcomeHostAlive)
		return
	}
	t.enter(r)
}

// destroySockets is steps 1 and 2. Trouble with it is recorded and stops
// nothing: terminating the backends is what makes the kill correct.
func (t *Terminator) destroySockets(ctx context.Context, r *run) {
	r.phase = phaseRead
	if t.cfg.Sockets == nil {
		r.sockets.Text = "socket kill not available"
		return
	}
	if err := t.survey(ctx, r); err != nil && !r.w.Replication {
		r.sockets.Text = "left alone: replication cannot be told from other connections: " + err.Error()
		return
	}
	start := clock.Now()
	ctx, cancel := r.working(ctx)
	defer cancel()
	w := r.w
	w.Verdict = r.verdict()
	sockets, err := t.cfg.Sockets.Destroy(ctx, w, r.walsenders)
	r.timed("sockets", start)
	if err != nil && !r.cancelled() {
		r.err = err
		sockets.Text = strings.TrimPrefix(sockets.Text+"; socket kill: "+err.Error(), "; ")
		t.log.Error("sockets not destroyed", "peer", r.w.Addr, "warrant", r.w.ID, "err", err)
	}
	r.again = sockets.Destroyed > 0 && sockets.Left > 0
	r.sockets = r.sockets.and(sockets)
}

// resume goes back to the sockets when some of them were left, as time was short; it
// reports whether it does. It ends when nothing more can be destroyed.
func (r *run) resume() bool {
	if !r.again {
		return false
	}
	r.again, r.phase, r.due = false, phaseSockets, clock.Now()
	return true
}

// conclude finishes a run whose backends are looked after, unless sockets are not.
func (t *Terminator) conclude(r *run, outcome Outcome) {
	if !r.resume() {
		t.finish(r, outcome)
	}
}

// survey looks at the sessions before their sockets go: many end by that alone,
// and the record is to name them. Only the database knows which connections are
// replication. Without it sockets are destroyed all the same.
func (t *Terminator) survey(ctx context.Context, r *run) error {
	t.conn.ensure(ctx, clock.Now())
	if t.conn.conn == nil {
		return errNoConn
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	err := t.read(ctx, r)
	if err != nil {
		t.conn.settle(err)
	}
	return err
}

// readAndKill is steps 3 and 4: one look at the sessions of the address, and a
// signal for each that the warrant covers and that has not got one yet.
func (t *Terminator) readAndKill(ctx context.Context, r *run) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := t.read(ctx, r); err != nil {
		t.conn.settle(err)
		t.failed(r, err)
		return
	}
	left := r.left()
	switch {
	case len(left) == 0:
		t.conclude(r, OutcomeDone)
		return
	case r.w.DryRun:
		t.finish(r, OutcomeDryRun)
		return
	}
	if err := t.kill(ctx, r, left); err != nil {
		t.conn.settle(err)
		t.failed(r, err)
		return
	}
	if !r.cancelled() {
		t.verify(r, left)
	}
}

// read looks at the sessions of the address and marks what is there, gone, new.
func (t *Terminator) read(ctx context.Context, r *run) error {
	start := clock.Now()
	snap, err := readBackends(ctx, t.conn.conn, r.w.Addr)
	// The clocks are read after the answer: what began while it was under way
	// must look newer, not older.
	clocks := readClocks{
		verdict: r.verdict(), taken: r.taken, takenWall: r.takenWall,
		asked: start, read: clock.Now(), readWall: time.Now(), databaseNow: snap.db,
	}
	step := "verify"
	if !r.begun {
		step = "read"
	}
	r.timed(step, start)
	if err != nil {
		return err
	}
	found := choose(&r.w, &snap, clocks.cut(), t.ownPIDs())
	r.note(found)
	return nil
}

func (t *Terminator) ownPIDs() []uint32 {
	if t.cfg.OwnPIDs == nil {
		return nil
	}
	return t.cfg.OwnPIDs()
}

func (r *run) note(found choice) {
	r.newer, r.spared, r.walsenders = found.newer, found.spared, found.walsenders
	for _, known := range r.targets {
		known.gone = true
	}
	for _, b := range found.covered {
		known := r.targets[b.key()]
		if known == nil {
			known = &target{}
			r.targets[b.key()] = known
		}
		known.backend, known.gone = b, false
	}
}

// kill signals those that have not been yet, in batches.
func (t *Terminator) kill(ctx context.Context, r *run, left []*target) error {
	start := clock.Now()
	var todo []backend
	for _, target := range left {
		if !target.signalled && !target.refused {
			todo = append(todo, target.backend)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if !r.begun {
		r.begun = true
		t.log.Info("terminating sessions of lost client", "peer", r.w.Addr, "warrant", r.w.ID,
			"session", r.w.Session, "why", r.w.Reason, "case", r.w.Case, "backends", len(todo), "evidence", r.evidence.Text)
	}
	defer r.timed("terminate", start)
	for batch := range slices.Chunk(todo, killBatch) {
		if r.cancelled() {
			return nil
		}
		answers, err := killBackends(ctx, t.conn.conn, batch)
		for _, a := range answers {
			r.answered(a)
		}
		if err == nil {
			err = t.helpWith(ctx, r, batch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) answered(a killed) {
	target := r.targets[a.backend.key()]
	target.signalled, target.err = a.err == nil, a.err
	pgErr, ok := errors.AsType[*pgconn.PgError](a.err)
	target.refused = ok && pgErr.Code == "42501"
}

// verifyDelays are the pauses between looks: most sessions go in a millisecond
// or two, the rest is not worth a busy loop.
var verifyDelays = []time.Duration{1, 2, 5, 10, 20, 50, 100, 200, 500}

// verify plans the next look, or gives up on those that are left.
func (t *Terminator) verify(r *run, left []*target) {
	now := clock.Now()
	if r.deadline.IsZero() {
		r.deadline = now.Add(t.cfg.Timeout)
	}
	// Signals that were refused end nobody, however long one waits; destroyed
	// sockets may.
	hopeless := r.sockets.Destroyed == 0 && !slices.ContainsFunc(left, func(l *target) bool { return !l.refused })
	if hopeless || !now.Before(r.deadline) {
		t.conclude(r, OutcomeSurvivors)
		return
	}
	delay := verifyDelays[min(r.looks, len(verifyDelays)-1)] * time.Millisecond
	r.looks++
	r.backoff = 0
	r.due = now.Add(delay).Min(r.deadline)
}

// failed keeps a run that cannot go on now. Giving it up would leave its locks
// held for as long as TCP likes.
func (t *Terminator) failed(r *run, err error) {
	r.err = err
	r.resume()
	r.deadline = 0 // signalled sessions get their time when there is somebody to watch them
	r.backoff = min(max(2*r.backoff, retryMin), retryMax)
	r.due = clock.Now().Add(r.backoff)
	switch {
	case t.conn.untried() && r.losses == 0:
		// Lost just now: whether that matters shows when it is opened again.
		r.losses++
		r.due = clock.Now()
		return
	case t.conn.conn == nil:
		r.due = clock.Now() // as soon as there is one
	}
	if !r.reported {
		r.reported = true
		t.record(r, OutcomeStuck)
	}
}
