// SPDX-License-Identifier: Apache-2.0

// Command modes measures what each way through conmgr costs, against a straight
// connection and against the proxies that people use for the same purpose, all to
// the same instance and one after the other in each round:
//
//	straight      pgbench and psql to the instance itself
//	direct        the same with libconmgr loaded before
//	proxy         conmgr's application port
//	pass-through  a port of proxy_listen
//	haproxy       HAProxy, mode tcp
//	pgbouncer     PgBouncer, pool_mode session
//	again         straight once more, as a measure of all ratios
//
// What is measured in a round:
//
//   - select: pgbench -S, 8 clients, transactions per second after the first second
//
//   - copy: psql, COPY of a table to stdout, megabytes per second
//
//   - storm: pgbench -C, a new connection for each SELECT 1 of 4 clients, connections
//     per second
//
//   - connect: one connection after the other, the mean time of each with its
//     SELECT 1
//
//   - dead: the same when the first instance that is listed is dead: through conmgr,
//     and by a host list of libpq, whose connect_timeout is 2 s at least
//
//     go run ./scripts/bench/modes [-rounds 28] [-seconds 3s] [-parts select,copy,storm,connect,dead] [-ways ...] (root)
//
// The order of the ways changes with each round (see order), and -ways leaves some out
// of all parts but dead. A ratio is taken within a round; what is reported is the median
// of the ratios, with its quartiles. The last line is one JSON object with all figures. Exit code 1: something did not work.
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

// parts are what can be measured.
var parts = []string{"select", "copy", "storm", "connect", "dead"}

// bench is one run of the program.
type bench struct {
	rounds  int
	parts   []string
	ways    []string
	seconds time.Duration // of each select and storm
	report  report
	log     io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "modes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	b := &bench{log: log}
	flags := flag.NewFlagSet("modes", flag.ContinueOnError)
	flags.IntVar(&b.rounds, "rounds", 4*len(ways), "rounds, best a multiple of 14 (see order)")
	flags.DurationVar(&b.seconds, "seconds", 3*time.Second, "length of each select and storm, whole seconds")
	list := flags.String("parts", strings.Join(parts, ","), "what to measure")
	only := flags.String("ways", strings.Join(ways, ","), "how to reach the instance")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.parts, b.ways = strings.Split(*list, ","), strings.Split(*only, ",")
	for _, c := range []struct {
		what       string
		given, all []string
	}{{"part", b.parts, parts}, {"way", b.ways, ways}} {
		for _, name := range c.given {
			if !slices.Contains(c.all, name) {
				return fmt.Errorf("%s %q: expected one of %s", c.what, name, strings.Join(c.all, ", "))
			}
		}
	}
	if b.rounds < 1 || b.seconds < time.Second || b.seconds%time.Second != 0 {
		return errors.New("expected at least one round and whole seconds")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	b.report = newReport(ctx, b)
	failed := b.runAll(ctx)
	if err := b.report.print(out); err != nil {
		return err
	}
	return failed
}

// runAll goes through the rounds in one world; what was measured before an error is
// kept.
func (b *bench) runAll(ctx context.Context) (err error) {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.warm(ctx); err != nil {
		return err
	}
	for i := range b.rounds {
		if err := b.round(ctx, w, i); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		fmt.Fprintf(b.log, "round %d of %d\n", i+1, b.rounds)
	}
	return nil
}

// round measures each part of each way once.
func (b *bench) round(ctx context.Context, w *world, i int) error {
	for _, part := range b.parts {
		if part == "dead" {
			continue
		}
		for _, name := range order(b.ways, i) {
			before, err := w.spent(name)
			if err != nil {
				return err
			}
			o, err := w.measure(ctx, part, name, b.seconds)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", part, name, err)
			}
			b.report.add(part, name, o.value)
			after, err := w.spent(name)
			if err != nil {
				return err
			}
			if spent := after - before; part == "select" && spent > 0 && o.transactions > 0 {
				b.report.add(selectCost, name, float64(spent.Microseconds())/o.transactions)
			}
		}
	}
	if slices.Contains(b.parts, "dead") {
		return b.deadFirst(ctx, w)
	}
	return nil
}

// order is a Williams design: in 2n rounds each of n ways comes at each place, and
// after each other one, equally often. What a way leaves behind, such as backends
// that still end, would else be charged to always the same next one.
func order(all []string, round int) []string {
	n := len(all)
	list := make([]string, n)
	for i := range list {
		at := (i + 1) / 2 // 0, 1, -1, 2, -2, ...
		if i%2 == 0 {
			at = -at
		}
		list[i] = all[((at+round)%n+n)%n]
	}
	if round/n%2 == 1 {
		slices.Reverse(list)
	}
	return list
}

// deadFirst connects while the first instance is dead.
func (b *bench) deadFirst(ctx context.Context, w *world) error {
	if err := w.kill(ctx); err != nil {
		return err
	}
	for _, name := range []string{"direct", "proxy", "pass-through"} {
		o, err := w.measure(ctx, "connect", name, b.seconds)
		if err != nil {
			return fmt.Errorf("dead first, %s: %w", name, err)
		}
		b.report.add("dead", name, o.value)
	}
	value, err := w.hostList(ctx)
	if err != nil {
		return fmt.Errorf("dead first, libpq: %w", err)
	}
	b.report.add("dead", "libpq", value)
	return w.revive(ctx)
}
