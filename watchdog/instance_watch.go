// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	fastInterval   = 50 * time.Millisecond // of a standby that a conmgr waits for
	minBackoff     = 20 * time.Millisecond // between connects while there is no instance
	maxBackoff     = time.Second
	minDoorSpacing = 200 * time.Millisecond
)

// burst are the checks after postmaster.pid was touched: the write may come before
// the end of recovery can be seen.
var burst = []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond}

// watch is the running part of a Monitor. Everything in it belongs to the goroutine
// of loop; the goroutines it starts (one check at most, one door at most, one for
// the postmaster's life, one for postmaster.pid) report over its channels.
type watch struct {
	ctx              context.Context
	cancel           context.CancelFunc
	group            sync.WaitGroup
	monitor          *Monitor
	log              *slog.Logger
	network, address string

	link      *link // the running check's, while checking
	checking  bool
	stopCheck context.CancelFunc
	checked   chan outcome

	knocking bool
	knocked  chan error

	postmaster *postmaster
	died       chan *postmaster
	pidFile    *pidFileWatch
	directory  string // the one that pidFile watches
	touched    chan touch

	met        bool // the instance answered a check once
	facts      facts
	wishes     wishes
	complaints map[string]complaint
	earlier    *ServerSettings

	reread    bool
	released  bool           // left for a smart shutdown: no connect until the postmaster ended
	begun     mono.Instant   // of the last check
	due       mono.Instant   // of the next check
	pending   []mono.Instant // further checks of a burst
	backoff   time.Duration  // before the next connect
	doorDue   mono.Instant   // of the next door
	doorBegun mono.Instant   // of the last one
}

func newWatch(ctx context.Context, m *Monitor, l *link, network, address string) *watch {
	w := &watch{
		monitor: m, log: m.log, network: network, address: address, link: l, stopCheck: func() {},
		checked: make(chan outcome, 1), knocked: make(chan error, 1),
		died: make(chan *postmaster, 1), touched: make(chan touch, 1),
		complaints: make(map[string]complaint), wishes: m.take(), earlier: m.options.Earlier, backoff: minBackoff,
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.due = clock.Now()
	w.doorDue = w.due.Add(w.wishes.timing.accept)
	w.facts.dryRun, w.facts.paused = w.wishes.dryRun, w.wishes.paused
	return w
}

// close ends and waits for the goroutines. What they still had to say is lost.
func (w *watch) close() {
	w.cancel()
	w.unwatchPostmaster()
	w.unwatchPidFile()
	w.group.Wait()
	select {
	case out := <-w.checked:
		if out.connected != nil && out.connected.postmaster != nil {
			out.connected.postmaster.close()
		}
	default:
	}
	w.link.close()
}

func (w *watch) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for w.ctx.Err() == nil {
		w.start(clock.Now())
		timer.Reset(w.next().Sub(clock.Now()))
		select {
		case <-w.ctx.Done():
		case <-timer.C:
		case <-w.monitor.wake:
			w.onWish(w.monitor.take())
		case out := <-w.checked:
			w.onChecked(out)
		case err := <-w.knocked:
			w.onKnocked(err)
		case p := <-w.died:
			w.onDied(p)
		case t := <-w.touched:
			w.onTouched(t)
		}
		w.publish()
	}
}

// start begins what is due.
func (w *watch) start(now mono.Instant) {
	for len(w.pending) > 0 && !w.pending[0].After(now) {
		w.due, w.pending = now, w.pending[1:]
	}
	if !w.checking && !w.released && !w.due.After(now) {
		w.startCheck(now)
	}
	if !w.knocking && !w.facts.down && !w.doorDue.After(now) {
		w.startKnock(now)
	}
}

// next returns when start has something to do again, if nothing happens before.
func (w *watch) next() mono.Instant {
	next := clock.Now().Add(time.Minute)
	if !w.checking && !w.released {
		next = next.Min(w.due)
	}
	if len(w.pending) > 0 {
		next = next.Min(w.pending[0])
	}
	if !w.knocking && !w.facts.down {
		next = next.Min(w.doorDue)
	}
	return next
}

func (w *watch) startCheck(now mono.Instant) {
	w.begun = now
	s := step{timeout: w.wishes.timing.acceptTimeout, reread: w.reread, release: w.facts.stopping}
	w.reread = false
	w.checking = true
	w.due = now.Add(w.interval())
	ctx, cancel := context.WithCancel(w.ctx)
	w.stopCheck = cancel
	w.group.Go(func() { w.runCheck(ctx, s) })
}

func (w *watch) runCheck(ctx context.Context, s step) { w.checked <- w.link.run(ctx, s) }

func (w *watch) startKnock(now mono.Instant) {
	w.knocking, w.doorBegun = true, now
	timeout := w.wishes.timing.acceptTimeout
	w.group.Go(func() { w.runKnock(timeout) })
}

func (w *watch) runKnock(timeout time.Duration) {
	w.knocked <- knock(w.ctx, w.link.options.Dial, w.network, w.address, timeout)
}

// interval is the time between two checks as things are.
func (w *watch) interval() time.Duration {
	standby := w.facts.known && w.facts.seen.attribute == wire.AttributeStandby
	if w.wishes.fast && standby && w.pidFile == nil {
		return min(w.wishes.timing.check, fastInterval)
	}
	return w.wishes.timing.check
}

func (w *watch) onWish(n wishes) {
	now := clock.Now()
	if n.check || n.fast && !w.wishes.fast {
		w.due = now
	}
	if n.knock {
		w.doorDue = now
		w.spaceDoor(minDoorSpacing)
	}
	if n.timing != w.wishes.timing {
		w.due = w.due.Min(now.Add(n.timing.check))
		w.doorDue = w.doorDue.Min(now.Add(n.timing.accept))
	}
	w.reread = w.reread || n.reread
	w.facts.paused, w.facts.dryRun = n.paused, n.dryRun
	w.wishes = n
}

// spaceDoor keeps the next door at least gap after the begin of the last.
func (w *watch) spaceDoor(gap time.Duration) {
	if earliest := w.doorBegun.Add(gap); !w.doorBegun.IsZero() && w.doorDue.Before(earliest) {
		w.doorDue = earliest
	}
}

func (w *watch) publish() {
	before := w.facts.current
	state, changed, news := w.facts.fold()
	if news {
		w.log.Info("instance state changed", "from", describe(before), "to", describe(state),
			"timeline", state.Timeline, "read_only", state.ReadOnly, "dry_run", state.DryRun, "paused", state.Paused,
			"port", state.Port, "generation", state.Generation)
	}
	if changed {
		w.monitor.publish(state)
	}
}

func describe(i wire.Instance) string { return i.Status.String() + " " + i.Attribute.String() }
