// SPDX-License-Identifier: Apache-2.0

// Command kill measures how long it takes to kill all sockets of one peer among
// those of others: agent/sockdiag against "ss -K", in alternation, on the same
// sockets anew each round.
//
//   - all in a lab of its own: a database host, the peer, other clients
//
//   - the peer is cut off when it dies, as a dead host is; with -alive it is not,
//     and answers each reset
//
//   - ours: dial, find with tcp_info, destroy, and find again until none is left,
//     as the agent does; "one pass" is until the last one was destroyed
//
//   - ss: the program from its start to its end, as no agent would have it
//     running. "ss_idle_ms" is the same with nobody to kill.
//
//   - the server is a process of its own; survivors and bystanders are counted
//     by what TCP_INFO says on its descriptors, not by what either tool says
//
//     go run ./scripts/bench/kill [-rounds 10] [-sizes 100,1000,4000,10000] (root)
//
// The last line is one JSON object with all figures. Exit code 1: something did
// not work, a socket survived, or a bystander was lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// bench is one run of the program.
type bench struct {
	rounds int
	others int
	alive  bool
	sizes  []int
	report report
	log    io.Writer
}

func main() {
	if isChild(os.Args[1:]) {
		if err := runChild(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "kill: child:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{log: log}
	flags := flag.NewFlagSet("kill", flag.ContinueOnError)
	flags.IntVar(&b.rounds, "rounds", 10, "rounds per size, each with one kill by either")
	flags.IntVar(&b.others, "others", 4000, "sockets of other clients")
	flags.BoolVar(&b.alive, "alive", false, "the peer is not cut off and answers")
	sizes := flags.String("sizes", "100,1000,4000,10000", "sockets of the peer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("size %q: expected a number of sockets", text)
		}
		b.sizes = append(b.sizes, n)
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ss"); err != nil {
		return fmt.Errorf("%w (package iproute2)", err)
	}
	realtime, err := becomeRealtime()
	if err != nil {
		return err
	}
	b.report = newReport(ctx, b)
	b.report.Realtime = realtime
	failed := b.runAll(ctx)
	if err := b.report.print(out); err != nil {
		return err
	}
	return errors.Join(failed, b.report.verdict())
}

// runAll makes one lab with its bystanders and goes through the sizes; what was
// measured before an error is kept.
func (b *bench) runAll(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lab, err := agenttest.New(ctx, "db", "peer", "other")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	w, err := newWorld(ctx, lab, b.others)
	if err != nil {
		return err
	}
	defer w.close()
	for _, size := range b.sizes {
		if err := b.runSize(ctx, w, size); err != nil {
			return fmt.Errorf("%d sockets: %w", size, err)
		}
	}
	return nil
}

// runSize lets both begin equally often.
func (b *bench) runSize(ctx context.Context, w *world, size int) error {
	row := b.report.add(size)
	for round := range b.rounds {
		order := []tool{{"ours", w.killOurs, &row.ours}, {"ss", w.killSS, &row.ss}}
		if round%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, t := range order {
			if err := b.once(ctx, w, row, t); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, t.name, err)
			}
		}
		idle, _, err := w.killSS(ctx)
		if err != nil {
			return err
		}
		row.idle = append(row.idle, idle)
	}
	fmt.Fprintf(b.log, "%d sockets: %d rounds done\n", size, b.rounds)
	return nil
}

// once opens the peer's sockets, lets it die, kills and counts.
func (b *bench) once(ctx context.Context, w *world, row *row, t tool) error {
	if err := w.open(ctx, row.Size); err != nil {
		return err
	}
	if !b.alive {
		if _, err := w.peer.Cut(ctx); err != nil {
			return err
		}
	}
	onePass, took, err := t.kill(ctx)
	if err != nil {
		return err
	}
	*t.times = append(*t.times, took)
	survivors, lost, err := w.count(row.Size)
	if err != nil {
		return err
	}
	if t.name == "ours" {
		row.onePass = append(row.onePass, onePass)
		row.Survivors += survivors
		row.BystandersLost += lost
	} else {
		row.SSSurvivors += survivors
		row.SSBystandersLost += lost
	}
	if !b.alive {
		if _, err := w.peer.Heal(ctx); err != nil {
			return err
		}
	}
	return w.closePeer()
}
