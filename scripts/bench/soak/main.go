// SPDX-License-Identifier: Apache-2.0

// Command soak shows that a healthy session is left alone: conmgr and pgwatchdog
// watch each other over UDP with keys at 50 ms x 5 while every processor is busy
// and the network loses 10 % of all packets in each direction. It counts the
// sessions that ended: each is a false verdict. Everything is seen from outside
// the daemons:
//
//   - the error of an application on a pass-through port, idle, in a transaction
//     or asking all the time; of a console session after TARGET; of a session
//     past conmgr
//   - the backends, as another session sees them in pg_stat_activity
//   - frames sent, received, and the gaps between them: packets that the kernel
//     of each host saw
//   - frames lost: the counters of the injector, nftables on the switch
//   - what the machine itself does: how much a thread that only sleeps oversleeps.
//     A machine that others use too may stand still for longer than the timeout
//
// conmgr runs with agent_silence = fault, so that none of its verdicts remains
// without consequence. Only the column "conmgr" is its own word: frames missed as
// cm_ctl status tells.
//
//	go run ./scripts/bench/soak [-for 10m] (root)
//
// The last line is one JSON object with all figures. Exit code 1: something did
// not work, or a session ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// What is soaked.
const (
	interval    = 50 * time.Millisecond
	timeout     = 5 * interval
	lossPercent = 10
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	length := flags.Duration("for", 10*time.Minute, "how long to soak")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	r := newReport(ctx)
	r.head(out)
	failed := soak(ctx, r, *length, out, log)
	if err := r.print(out); err != nil {
		return err
	}
	if failed == nil {
		failed = r.check()
	}
	if n := r.FalseVerdicts; n > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d sessions ended", n))
	}
	return failed
}

// soak runs the world for the time and reports each minute. What was counted
// before an error is kept.
func soak(ctx context.Context, r *report, length time.Duration, out, log io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	a := newAudience(w, log)
	err = w.disturb(ctx, a)
	if err == nil {
		err = w.minutes(ctx, a, r, length, out)
	}
	cancel()
	a.wait()
	r.close(a)
	if err != nil || r.FalseVerdicts > 0 {
		fmt.Fprint(log, w.logs())
	}
	return errors.Join(err, w.close())
}

// disturb lets the applications come, and then makes the machine busy and the
// network bad.
func (w *world) disturb(ctx context.Context, a *audience) error {
	if err := a.start(ctx); err != nil {
		return err
	}
	if err := agenttest.KeepBusy(ctx); err != nil {
		return err
	}
	_, err := w.db.LossOn(ctx, portHeartbeat, lossPercent, lossPercent)
	return err
}

// minutes reports minute by minute until the time is over; the last one may be
// shorter.
func (w *world) minutes(ctx context.Context, a *audience, r *report, length time.Duration, out io.Writer) error {
	asleep := machine.WatchOversleep(ctx)
	last, err := w.look(ctx)
	if err != nil {
		return err
	}
	for end := time.Now().Add(length); time.Now().Before(end); {
		pause := time.NewTimer(min(time.Minute, time.Until(end)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
		next, err := w.look(ctx)
		if err != nil {
			return err
		}
		next.oversleep = asleep.Take()
		r.add(out, last, next, a.takeEnded())
		last = next
	}
	return nil
}
