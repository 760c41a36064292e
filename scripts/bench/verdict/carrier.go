// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// carrierLimit is what the median of a loss of carrier may take.
const carrierLimit = 10 // milliseconds

// carrierShare is how many losses are measured for each of the deaths of a trial: a
// loss takes a second or two, for the throttle's sake.
const carrierShare = 10

// factRtnetlink is what who listens to rtnetlink alone would have.
const factRtnetlink = "rtnetlink alone tells of a loss"

// carrier takes the client's cable out, again and again, inside the second in which
// the kernel does not announce the loss of another carrier. What rtnetlink makes of
// that is measured at a host where nothing else looks at the device: a look would
// have the loss announced at once.
func (b *bench) carrier(ctx context.Context, w *world, t trial) error {
	alone, err := watchOther(ctx, w.lab.Host("other"))
	if err != nil {
		return err
	}
	defer alone.stop()
	rows := make(map[string]*row)
	for i := range max(b.n/carrierShare, 1) {
		if err := b.loseCarrier(ctx, w, t, rows); err != nil {
			return fmt.Errorf("loss %d: %w", i+1, err)
		}
		if err := b.loseOther(ctx, w, t, alone, rows); err != nil {
			return fmt.Errorf("loss %d of rtnetlink: %w", i+1, err)
		}
	}
	return nil
}

func (b *bench) carrierRow(rows map[string]*row, t trial, fact string) *row {
	if rows[fact] == nil {
		rows[fact] = b.report.add("carrier lost in the throttle, grace 0, "+t.load+": "+fact, 0)
		rows[fact].limit = carrierLimit
	}
	return rows[fact]
}

func (b *bench) loseCarrier(ctx context.Context, w *world, t trial, rows map[string]*row) error {
	if err := w.awaitArmed(ctx); err != nil {
		return err
	}
	c := new(cast)
	defer c.close()
	if err := w.fill(ctx, c, 0, false); err != nil {
		return err
	}
	app, err := w.session(ctx, c, "dbname=postgres", portAny)
	if err != nil {
		return err
	}
	c.seen = append(c.seen, watched{factApplication, app.fd, false})
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cut, err := cutInThrottle(ctx, w.lab, w.client)
	if err != nil {
		return err
	}
	sight := <-watch(limit, c.fds())
	if _, err := w.client.Plug(ctx); err != nil {
		return err
	}
	if sight.err != nil {
		return sight.err
	}
	for i, fact := range c.seen {
		if sight.at[i].IsZero() {
			return fmt.Errorf("%s: not within %v", fact.fact, patience)
		}
		r := b.carrierRow(rows, t, fact.fact)
		r.late = append(r.late, sight.at[i].Sub(cut))
	}
	return nil
}

func cutInThrottle(ctx context.Context, lab *agenttest.Lab, h *agenttest.Host) (mono.Instant, error) {
	if _, err := lab.Throttle(ctx); err != nil {
		return 0, err
	}
	cut, err := h.Unplug(ctx)
	return cut.Before, err
}

// other watches a host by rtnetlink alone.
type other struct {
	host *agenttest.Host
	lost chan mono.Instant
	stop context.CancelFunc
}

func watchOther(ctx context.Context, h *agenttest.Host) (*other, error) {
	ctx, stop := context.WithCancel(ctx)
	o := &other{host: h, lost: make(chan mono.Instant, 16), stop: stop}
	var w *linkhint.Watcher
	err := h.Do(func() (err error) {
		w, err = linkhint.New(linkhint.Config{Without: []linkhint.Source{linkhint.Counter}, OnEvent: o.onEvent})
		return err
	})
	if err != nil {
		stop()
		return nil, err
	}
	go func() { _ = w.Run(ctx) }()
	return o, nil
}

func (o *other) onEvent(e linkhint.Event) {
	if e.Kind == linkhint.CarrierLost && e.Name == "eth0" {
		o.lost <- clock.Now()
	}
}

func (b *bench) loseOther(ctx context.Context, w *world, t trial, o *other, rows map[string]*row) error {
	cut, err := cutInThrottle(ctx, w.lab, o.host)
	if err != nil {
		return err
	}
	select {
	case at := <-o.lost:
		r := b.carrierRow(rows, t, factRtnetlink)
		r.late = append(r.late, at.Sub(cut))
	case <-time.After(patience):
		return fmt.Errorf("%s: not within %v", factRtnetlink, patience)
	}
	_, err = o.host.Plug(ctx)
	return err
}
