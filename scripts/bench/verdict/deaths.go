// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// deaths cuts the network between the hosts again and again: to each, the other
// dies without a word.
func (b *bench) deaths(ctx context.Context, w *world, t trial) error {
	rows := make(map[string]*row)
	measuring, stop := context.WithCancel(ctx)
	defer stop()
	lates := yardstick(measuring)
	for i := range b.n {
		if err := b.death(ctx, w, t, rows); err != nil {
			return fmt.Errorf("death %d: %w", i+1, err)
		}
		if (i+1)%50 == 0 {
			fmt.Fprintf(b.log, "%s: %d deaths\n", t.name, i+1)
		}
	}
	stop()
	b.report.add(t.title()+": "+factWakeup, 0).late = <-lates
	return nil
}

func (b *bench) row(rows map[string]*row, t trial, fact string) *row {
	if rows[fact] == nil {
		rows[fact] = b.report.add(t.title()+": "+fact, t.timeout())
	}
	return rows[fact]
}

// death is one cut at a random moment between two beats, seen to its end, and
// healed.
func (b *bench) death(ctx context.Context, w *world, t trial, rows map[string]*row) error {
	if err := w.awaitArmed(ctx); err != nil {
		return err
	}
	holders, busy := 1, t.load == loadBackends
	if busy {
		holders = runtime.NumCPU()
	}
	c, err := w.open(ctx, holders, busy)
	if err != nil {
		return err
	}
	defer c.close()
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen := watch(limit, c.fds())
	settle := time.NewTimer(2*t.interval + rand.N(t.interval))
	defer settle.Stop()
	<-settle.C
	cut, err := w.db.Cut(ctx)
	if err != nil {
		return err
	}
	sight := <-seen
	if sight.err != nil {
		return sight.err
	}
	clientLast, err1 := w.clientFrames.LastReceived(w.db.Addr4)
	dbLast, err2 := w.frames.LastReceived(w.client.Addr4)
	_, err3 := w.db.Heal(ctx)
	for _, err := range []error{err1, err2, err3} {
		if err != nil {
			return err
		}
	}
	for i, fact := range c.seen {
		last := clientLast
		if fact.server {
			last = dbLast
		}
		if err := b.row(rows, t, fact.fact).note(last, cut, sight.at[i]); err != nil {
			return err
		}
	}
	return nil
}

// note adds a fact. A frame after the cut has begun is possible, one after it
// took effect is not.
func (r *row) note(last mono.Instant, cut agenttest.Effect, at mono.Instant) error {
	if at.IsZero() {
		return fmt.Errorf("%s: not within %v", r.Case, patience)
	}
	if last.IsZero() || last.After(cut.After) {
		return fmt.Errorf("%s: last frame at %v, cut until %v: expected it before", r.Case, last, cut.After)
	}
	late := at.Sub(last) - time.Duration(r.TimeoutMS*float64(time.Millisecond))
	if late < 0 || at.Before(cut.Before) {
		r.FalseVerdicts++
	}
	r.late = append(r.late, late)
	r.afterCut = append(r.afterCut, at.Sub(cut.Before))
	return nil
}

// reference ends backends with SIGTERM, as pg_terminate_backend does: what of a
// row is PostgreSQL's own time.
func (b *bench) reference(ctx context.Context, w *world, t trial) error {
	rows := make(map[string]*row)
	for range b.n {
		if err := w.awaitArmed(ctx); err != nil {
			return err
		}
		if err := b.signal(ctx, w, t, rows); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) signal(ctx context.Context, w *world, t trial, rows map[string]*row) error {
	c := new(cast)
	defer c.close()
	if err := w.holder(ctx, c, 0, false); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	seen := watch(limit, c.fds())
	before := clock.Now()
	if err := unix.Kill(int(c.sessions[0].pid), unix.SIGTERM); err != nil {
		return fmt.Errorf("end backend %d: %w", c.sessions[0].pid, err)
	}
	sight := <-seen
	if sight.err != nil {
		return sight.err
	}
	for i, fact := range c.seen {
		if !fact.server {
			continue
		}
		if sight.at[i].IsZero() {
			return fmt.Errorf("%s: not within %v of the signal", fact.fact, patience)
		}
		if rows[fact.fact] == nil {
			rows[fact.fact] = b.report.add("SIGTERM alone, "+t.load+": "+fact.fact, 0)
		}
		rows[fact.fact].late = append(rows[fact.fact].late, sight.at[i].Sub(before))
	}
	return nil
}

// noDeath watches applications that nothing happens to.
func (b *bench) noDeath(ctx context.Context, w *world, t trial) error {
	r := b.report.add(fmt.Sprintf("%s: %v without a death", t.title(), b.control), t.timeout())
	for end := time.Now().Add(b.control); time.Now().Before(end); {
		if err := w.awaitArmed(ctx); err != nil {
			return err
		}
		c, err := w.open(ctx, 1, false)
		if err != nil {
			return err
		}
		limit, cancel := context.WithDeadline(ctx, end)
		sight := <-watch(limit, c.fds())
		cancel()
		c.close()
		if sight.err != nil {
			return sight.err
		}
		for i, at := range sight.at {
			if !at.IsZero() {
				r.FalseVerdicts++
				fmt.Fprintln(b.log, strings.TrimSpace(r.Case)+": false:", c.seen[i].fact)
			}
		}
	}
	return ctx.Err()
}
