// SPDX-License-Identifier: Apache-2.0

// Command verdict measures when a silent death is noticed: how much later than
// the last valid frame plus heartbeat_timeout the facts are there that users
// care about. Everything is seen from outside the daemons:
//
//   - the application's error: its socket, on a pass-through port of conmgr or
//     on the console after TARGET, is readable
//   - the backend of the dead client has ended (pidfd)
//   - a lock that it held is granted to another session
//   - the last frame: the time that the kernel of the host gave the packet
//
// and, with link_down_grace = 0, how soon after the loss of a carrier.
//
// The kernel stamps a frame a little before the daemon can read it, so that
// reading it counts as lateness. The observer runs with real-time priority: its
// own waiting for a processor is not counted.
//
//	go run ./scripts/bench/verdict [-n 200] [-cases 50ms-idle,50ms-busy] (root)
//
// The last line is one JSON object with all figures. Exit code 1: something did
// not work, or a verdict came too early.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Loads are what runs on the machine beside the lab.
const (
	loadIdle     = "idle"
	loadBusy     = "busy"     // one endless loop per processor
	loadBackends = "backends" // one endless loop per processor, by the client's own backends
)

// trial is one series of measurements.
type trial struct {
	name     string
	interval time.Duration
	load     string
	udp      bool // heartbeats over UDP, with a key; else TCP without
	measure  func(*bench, context.Context, *world, trial) error
}

func (t trial) timeout() time.Duration { return 3 * t.interval }

// carrier reports whether the trial is about lost links.
func (t trial) carrier() bool { return strings.HasPrefix(t.name, "carrier") }

// title names the trial in rows.
func (t trial) title() string {
	title := fmt.Sprintf("%v x 3, %s", t.interval, t.load)
	if t.udp {
		title += ", UDP"
	}
	return title
}

const slow, fast = 100 * time.Millisecond, 50 * time.Millisecond

var trials = []trial{
	{"100ms-idle", slow, loadIdle, false, (*bench).deaths},
	{"100ms-busy", slow, loadBusy, false, (*bench).deaths},
	{"50ms-idle", fast, loadIdle, false, (*bench).deaths},
	{"50ms-busy", fast, loadBusy, false, (*bench).deaths},
	{"50ms-backends", fast, loadBackends, false, (*bench).deaths},
	{"udp-100ms-idle", slow, loadIdle, true, (*bench).deaths},
	{"udp-100ms-busy", slow, loadBusy, true, (*bench).deaths},
	{"udp-50ms-idle", fast, loadIdle, true, (*bench).deaths},
	{"udp-50ms-busy", fast, loadBusy, true, (*bench).deaths},
	{"reference-idle", fast, loadIdle, false, (*bench).reference},
	{"reference-busy", fast, loadBusy, false, (*bench).reference},
	{"50ms-control", fast, loadBusy, false, (*bench).noDeath},
	{"udp-50ms-control", fast, loadBusy, true, (*bench).noDeath},
	{"carrier-idle", slow, loadIdle, false, (*bench).carrier},
	{"carrier-busy", slow, loadBusy, false, (*bench).carrier},
	{"cost", slow, loadIdle, false, (*bench).cost},
	{"udp-cost", slow, loadIdle, true, (*bench).cost},
}

// bench is one run of the program.
type bench struct {
	n       int
	control time.Duration
	report  report
	log     io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "verdict:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{log: log}
	var names []string
	for _, t := range trials {
		names = append(names, t.name)
	}
	flags := flag.NewFlagSet("verdict", flag.ContinueOnError)
	flags.IntVar(&b.n, "n", 200, "deaths per trial")
	flags.DurationVar(&b.control, "control", time.Minute, "length of the trial without a death")
	cases := flags.String("cases", strings.Join(names, ","), "trials to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(strings.Split(*cases, ","))
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	b.report = newReport(ctx)
	failed := b.runAll(ctx, chosen)
	if err := b.report.print(out); err != nil {
		return err
	}
	if n := b.report.falseVerdicts(); n > 0 {
		failed = errors.Join(failed, fmt.Errorf("%d verdicts came before their time", n))
	}
	return failed
}

func choose(names []string) ([]trial, error) {
	var chosen []trial
	for _, name := range names {
		i := slices.IndexFunc(trials, func(t trial) bool { return t.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no trial %q", name)
		}
		chosen = append(chosen, trials[i])
	}
	return chosen, nil
}

// runAll runs each trial in a world of its own; what was measured before an
// error is kept.
func (b *bench) runAll(ctx context.Context, chosen []trial) error {
	for _, t := range chosen {
		if err := b.runTrial(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

func (b *bench) runTrial(ctx context.Context, t trial) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := newWorld(ctx, t)
	if err != nil {
		return err
	}
	err = t.measure(b, ctx, w, t)
	if err != nil {
		fmt.Fprint(b.log, w.logs())
	}
	return errors.Join(err, w.close())
}
