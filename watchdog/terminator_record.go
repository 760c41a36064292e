// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

const (
	// maxNamed is how many survivors a record names.
	maxNamed = 100
	// maxPIDs is how many sessions it names by their process alone.
	maxPIDs = 1000
)

// record is step 5: one audit line and one event.
func (t *Terminator) record(r *run, outcome Outcome) Result {
	result := r.result(outcome)
	t.audit(r, &result)
	if t.cfg.Events != nil {
		if err := t.cfg.Events.Append(r.event(&result)); err != nil {
			t.log.Error("event not written", "warrant", r.w.ID, "err", err)
		}
	}
	return result
}

func (r *run) result(outcome Outcome) Result {
	left := r.left()
	result := Result{
		Warrant: r.w, Outcome: outcome, Backends: len(r.targets), Ended: len(r.targets) - len(left),
		Newer: r.newer, Spared: r.spared, Evidence: r.evidence, Sockets: r.sockets,
		Joined: r.lead, Took: clock.Now().Sub(r.taken), Err: r.err,
	}
	for _, target := range left {
		result.Survivors = append(result.Survivors, Survivor{
			PID: target.pid, User: target.user, ClientPort: target.port, Type: target.kind,
			Why: target.why(outcome),
		})
	}
	return result
}

// why says why a session is left.
func (t *target) why(outcome Outcome) string {
	pgErr, isServer := errors.AsType[*pgconn.PgError](t.err)
	switch {
	case t.refused && t.superuser:
		return fmt.Sprintf("superuser session, the agent's role may not end it: %s (%s); %v", pgErr.Message, pgErr.Code, t.helper)
	case t.refused:
		return fmt.Sprintf("the agent's role may not end it, GRANT pg_signal_backend TO it: %s (%s)", pgErr.Message, pgErr.Code)
	case isServer:
		return fmt.Sprintf("not signalled: %s (%s)", pgErr.Message, pgErr.Code)
	case t.err != nil:
		return "not signalled: " + t.err.Error()
	case outcome == OutcomeDryRun:
		return "dry run"
	case t.signalled && outcome == OutcomeSurvivors:
		return "signalled, but did not end in time"
	case t.signalled:
		return "signalled, not yet seen to end"
	}
	return "not signalled"
}

// audit writes one line: an ERROR when somebody is left that should not be.
func (t *Terminator) audit(r *run, result *Result) {
	level, msg := slog.LevelInfo, "sessions of lost client terminated"
	switch result.Outcome {
	case OutcomeSurvivors:
		level, msg = slog.LevelError, "sessions of lost client survived"
	case OutcomeStuck:
		level, msg = slog.LevelError, "sessions of lost client cannot be terminated yet"
	case OutcomeClosed:
		msg = "warrant closed, what is left is kept"
	case OutcomeDryRun:
		msg = "dry run: sessions of lost client would be terminated"
	case OutcomeHostAlive:
		msg = "host of lost client is alive"
	case OutcomeProtected:
		level, msg = slog.LevelWarn, "warrant for a protected address refused"
	case OutcomeStopped:
		level, msg = slog.LevelWarn, "agent stops before a warrant is done"
	}
	attrs := []slog.Attr{
		slog.Any("peer", r.w.Addr), slog.Uint64("warrant", r.w.ID), slog.Uint64("session", r.w.Session),
		slog.String("case", r.w.Case.String()), slog.String("why", r.w.Reason.String()),
		slog.Duration("silence", silence(&r.w).Round(time.Millisecond)), slog.String("evidence", r.evidence.Text),
		slog.String("sockets", r.sockets.Text), slog.Int("backends", result.Backends),
		slog.Int("ended", result.Ended), slog.Int("newer", result.Newer), slog.Int("spared", result.Spared),
		slog.Duration("took", result.Took.Round(time.Microsecond)), slog.String("steps_ms", stepsText(r.steps)),
	}
	if r.lead != 0 {
		attrs = append(attrs, slog.Uint64("joined", r.lead))
	}
	if len(result.Survivors) > 0 {
		attrs = append(attrs, slog.Any("survivors", result.Survivors[:min(len(result.Survivors), maxNamed)]))
	}
	if result.Err != nil {
		attrs = append(attrs, slog.Any("err", result.Err))
	}
	t.log.LogAttrs(context.Background(), level, msg, attrs...)
}

func (r *run) event(result *Result) Event {
	e := Event{
		Time: clock.Wall(clock.Now()), Kind: "warrant", Addr: r.w.Addr,
		Conmgr: hex.EncodeToString(r.w.Conmgr[:]), Session: r.w.Session, Warrant: r.w.ID,
		Case: r.w.Case.String(), Reason: r.w.Reason.String(), SilenceMS: silence(&r.w).Milliseconds(),
		Outcome: string(result.Outcome), DryRun: r.w.DryRun, Evidence: r.evidence.Text, Joined: r.lead,
		Sockets: r.sockets.Text, SocketsDestroyed: r.sockets.Destroyed, SocketsLeft: r.sockets.Left,
		SocketsSpared: r.sockets.Spared, SocketsBusy: r.sockets.Busy,
		Backends: result.Backends, Ended: result.Ended, Newer: result.Newer, Spared: result.Spared,
		PIDs: r.pids(), Survivors: result.Survivors, SurvivorsTotal: len(result.Survivors), StepsMS: maps.Clone(r.steps),
		VerdictAt: clock.Wall(r.w.Verdict),
	}
	if !r.w.LastValid.IsZero() {
		e.LastValidAt = clock.Wall(r.w.LastValid)
	}
	if result.Err != nil {
		e.Err = result.Err.Error()
	}
	return e
}

// pids are the processes of the sessions that the warrant covers, in order.
func (r *run) pids() []int32 {
	var pids []int32
	for key := range r.targets {
		pids = append(pids, key.pid)
	}
	slices.Sort(pids)
	return pids[:min(len(pids), maxPIDs)]
}

// silence is how long the client had been silent at the verdict; 0 when no
// frame of it is known.
func silence(w *Warrant) time.Duration {
	if w.LastValid == mono.Instant(0) {
		return 0
	}
	return w.Verdict.Sub(w.LastValid)
}

// stepsText writes what each step took, in milliseconds.
func stepsText(steps map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(steps)) {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, steps[name]))
	}
	return strings.Join(parts, ", ")
}
