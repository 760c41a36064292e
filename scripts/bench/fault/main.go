// SPDX-License-Identifier: Apache-2.0

// Command fault measures how long it takes until every application of a lost
// instance has its error: thousands bound to one instance, a third of them each by
// the console, a pass-through port and proxy mode, and others to another instance,
// who must notice nothing.
//
// The instance's host vanishes (all packets dropped, its agent stopped). Time runs
// from the verdict that is due, the last heartbeat frame as the kernel received it
// plus heartbeat_timeout, to the end of the read that brought an application its error.
// Applications live in processes of their own that look with epoll every
// millisecond and have no priority over conmgr: what they take of the processors,
// and up to that millisecond, is in the figures.
//
// conmgr, pgwatchdog, PostgreSQL and the kernel are real. Only the backends are
// not: the sessions of pass-through and proxy mode end at a small server that
// speaks enough of the protocol (serve.go), as thousands of real ones do not fit
// beside the rest on one machine.
//
//	go run ./scripts/bench/fault [-n 5000] [-others 1000] [-rounds 10] (root)
//
// The last line is one JSON object with all figures. Exit code 1: something did not
// work, an application got no error, or one of the other instance was disturbed.
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
)

// Timers of the heartbeat.
const (
	interval = 100 * time.Millisecond
	timeout  = 500 * time.Millisecond
)

// bench is one run of the program.
type bench struct {
	n, others, rounds int
	report            report
	log               io.Writer
}

func main() {
	if isChild(os.Args[1:]) {
		if err := runChild(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "fault: child:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{log: log}
	flags := flag.NewFlagSet("fault", flag.ContinueOnError)
	flags.IntVar(&b.n, "n", 5000, "applications of the instance that is lost")
	flags.IntVar(&b.others, "others", 1000, "applications of the other instance")
	flags.IntVar(&b.rounds, "rounds", 10, "faults")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.n < 1 || b.others < 0 || b.rounds < 1 {
		return errors.New("expected at least one application and one round")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	b.report = newReport(ctx, b)
	failed := b.runAll(ctx)
	if err := b.report.print(out); err != nil {
		return err
	}
	return errors.Join(failed, b.report.verdict())
}

// runAll goes through the rounds in one world; what was measured before an error is
// kept.
func (b *bench) runAll(ctx context.Context) (err error) {
	w, err := newWorld(ctx, b.n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.open(others, b.others); err != nil {
		return fmt.Errorf("others: %w\n%s", err, w.logTail())
	}
	for i := range b.rounds {
		r, err := w.round(ctx, b.n, b.others)
		if err != nil {
			return fmt.Errorf("round %d: %w\n%s", i+1, err, w.logTail())
		}
		b.report.add(r)
		fmt.Fprintf(b.log, "round %d: last error %.1f ms after the verdict\n", i+1, r.LastMS)
	}
	return nil
}
