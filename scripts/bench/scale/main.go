// SPDX-License-Identifier: Apache-2.0

// Command scale measures what many sessions cost one watchdog: a real pgwatchdog
// beside a real instance, pinned to one processor, and sessions from thousands of
// client addresses in load processes on another one.
//
//   - memory: resident (VmRSS) with the sessions minus without them, per session
//   - processor: usage_usec of a control group with pgwatchdog alone in it. It
//     includes what the kernel does in its name: sending, and what the network
//     stack of the receiving side does on the way, which on a real machine
//     another one would do.
//   - lateness of beats: when the kernel of the client host received them (packet
//     socket), behind the schedule of their session: multiples of the interval
//     behind its earliest beat. In a time of its own, because a packet socket
//     costs processor time too.
//   - false verdicts: sessions that ended at either end
//
// At most 8 sessions of one address are admitted, so 10,000 come from 1,250.
//
//	go run ./scripts/bench/scale [-sessions 1000,5000,10000] [-transports udp,tcp] (root)
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Timers of the sessions.
const (
	interval = time.Second
	timeout  = 5 * time.Second
)

// bench is one run of the program.
type bench struct {
	sessions   []int
	transports []string
	measure    time.Duration // of each of the two measurements of a trial
	report     report
	log        io.Writer
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == verbLoad {
		if err := runLoad(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "scale: load:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{log: log}
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	sessions := flags.String("sessions", "1000,5000,10000", "sessions per trial")
	transports := flags.String("transports", "udp,tcp", "transports")
	flags.DurationVar(&b.measure, "measure", 30*time.Second, "length of each measurement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for text := range strings.SplitSeq(*sessions, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxSessions {
			return fmt.Errorf("sessions %q: expected a number up to %d", text, maxSessions)
		}
		b.sessions = append(b.sessions, n)
	}
	for text := range strings.SplitSeq(*transports, ",") {
		if text != "udp" && text != "tcp" {
			return fmt.Errorf("transport %q: expected udp or tcp", text)
		}
		b.transports = append(b.transports, text)
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	b.report = newReport(ctx)
	failed := b.runAll(ctx)
	if err := b.report.print(out); err != nil {
		return err
	}
	return errors.Join(failed, b.report.verdict())
}

// runAll runs each trial with an agent of its own; what was measured before an
// error is kept.
func (b *bench) runAll(ctx context.Context) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, transport := range b.transports {
		for _, n := range b.sessions {
			row, err := b.trial(ctx, w, transport, n)
			if err != nil {
				return fmt.Errorf("%d sessions over %s: %w\n%s", n, transport, err, w.logTail())
			}
			b.report.Rows = append(b.report.Rows, row)
			fmt.Fprintf(b.log, "%s, %d sessions: %.2f %% of a core, %.0f bytes per session\n", transport, n, row.CPUPercent, row.BytesPerSession)
		}
	}
	return nil
}

// trial starts an agent, then the load, and measures when all is at rest.
func (b *bench) trial(ctx context.Context, w *world, transport string, n int) (*row, error) {
	r := &row{Transport: transport, Sessions: n, Addresses: (n + perAddress - 1) / perAddress, IntervalMS: millis(interval)}
	agent, err := w.startAgent(ctx)
	if err != nil {
		return nil, err
	}
	defer agent.stop()
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	before, err := agent.resident()
	if err != nil {
		return nil, err
	}
	load, err := w.startLoad(ctx, transport, n)
	if err != nil {
		return nil, err
	}
	defer load.stop()
	if err := load.awaitArmed(ctx, n); err != nil {
		return nil, err
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	if r.CPUPercent, err = agent.cpu(ctx, b.measure); err != nil {
		return nil, err
	}
	after, err := agent.resident()
	if err != nil {
		return nil, err
	}
	r.ResidentKiB, r.BytesPerSession = after/1024, float64(after-before)/float64(n)
	late, err := w.lateness(ctx, b.measure)
	if err != nil {
		return nil, err
	}
	r.Beats, r.LateMS = len(late), summarize(late)
	r.FalseVerdicts, err = load.ended()
	return r, err
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
