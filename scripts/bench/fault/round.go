// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// settle is how long everything is left alone before a fault.
const settle = time.Second

// round opens the victims, cuts their instance off, and heals it again.
func (w *world) round(ctx context.Context, n, rest int) (*round, error) {
	if err := w.open(victims, n); err != nil {
		return nil, err
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	for _, c := range w.loads {
		if err := c.Send("lost", 0); err != nil {
			return nil, err
		}
	}
	before, err := machine.CPUTime(w.cm.Process.Pid())
	if err != nil {
		return nil, err
	}
	if err := w.vanish(ctx); err != nil {
		return nil, err
	}
	at, early, err := w.outcomes()
	if err != nil {
		return nil, err
	}
	after, err := machine.CPUTime(w.cm.Process.Pid())
	if err != nil {
		return nil, err
	}
	last, err := w.frames.LastReceived(second(w.db[0]))
	if err != nil {
		return nil, err
	}
	for _, c := range w.loads {
		if err := c.Send("alive", rest); err != nil {
			return nil, err
		}
	}
	if err := child.AwaitOK(w.loads...); err != nil {
		return nil, fmt.Errorf("others: %w", err)
	}
	if err := w.appear(ctx); err != nil {
		return nil, err
	}
	r := newRound(at, early, last.Add(timeout))
	r.CPUMS = millis(after - before)
	return r, w.awaitMonitored(ctx)
}

// outcomes gathers what the load processes have seen.
func (w *world) outcomes() (at [][]mono.Instant, early int, err error) {
	at = make([][]mono.Instant, len(kinds))
	for _, c := range w.loads {
		text, err := c.Receive()
		if err != nil {
			return nil, 0, err
		}
		var o outcome
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return nil, 0, fmt.Errorf("answer of a load process: %w", err)
		}
		for k, list := range o.At {
			at[k] = append(at[k], list...)
		}
		early += o.Early
	}
	return at, early, nil
}

// newRound puts the figures of one fault together.
func newRound(at [][]mono.Instant, early int, due mono.Instant) *round {
	r := &round{Disturbed: early, LastByKindMS: map[string]float64{}}
	var all []time.Duration
	for k, list := range at {
		late := make([]time.Duration, len(list))
		for i, t := range list {
			late[i] = t.Sub(due)
		}
		slices.Sort(late)
		if len(late) > 0 {
			r.LastByKindMS[kinds[k]] = millis(late[len(late)-1])
		}
		all = append(all, late...)
	}
	slices.Sort(all)
	r.Told = len(all)
	r.FirstMS, r.MedianMS = millis(all[0]), millis(all[len(all)/2])
	r.P99MS, r.LastMS = millis(all[len(all)*99/100]), millis(all[len(all)-1])
	return r
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
