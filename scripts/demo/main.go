// SPDX-License-Identifier: Apache-2.0

// Command demo shows in half a minute what pgconmgr does: a database host and
// then a client host vanish without a word, and nobody waits for them. It runs
// on a laboratory of network namespaces with real PostgreSQL, measures from
// outside the daemons, and fails when any step does not happen. See usage.
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

const usage = `usage: demo [--timeout D] [--interval D] [--limit D]     (root)

  --timeout D    heartbeat_timeout (environment: DEMO_TIMEOUT; default 300ms)
  --interval D   heartbeat_interval (DEMO_INTERVAL; default a third of it)
  --limit D      how long any step may take before the demo fails
                 (DEMO_LIMIT; default the timeout and 10s)

Colours and pictures are for terminals; NO_COLOR=1 takes the colours away.
Exit status: 0 when all that was promised has happened, 1 when not, 2 for
wrong usage.
`

// options are the command line.
type options struct {
	timeout, interval, limit time.Duration
}

func main() {
	o, err := parse(os.Args[1:], os.Getenv)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "demo: %v\n%s", err, usage)
		os.Exit(2)
	case os.Geteuid() != 0:
		fmt.Fprintln(os.Stderr, "demo: only root can make network namespaces")
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer context.AfterFunc(ctx, stop)() // a second Ctrl-C ends at once
	s := newScreen(os.Stdout, os.Getenv)
	if err := run(ctx, o, s); err != nil {
		s.failure(err)
		os.Exit(1)
	}
}

func parse(args []string, getenv func(string) string) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, p := range []struct {
		name, env string
		value     *time.Duration
		standard  time.Duration
	}{
		{"timeout", "DEMO_TIMEOUT", &o.timeout, 300 * time.Millisecond},
		{"interval", "DEMO_INTERVAL", &o.interval, 0},
		{"limit", "DEMO_LIMIT", &o.limit, 0},
	} {
		flags.DurationVar(p.value, p.name, p.standard, "")
		if text := getenv(p.env); text != "" {
			if err := flags.Set(p.name, text); err != nil {
				return o, fmt.Errorf("%s=%q: expected a duration as 300ms", p.env, text)
			}
		}
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, o.check()
}

// check fills in what was not given and refuses what the daemons would refuse.
func (o *options) check() error {
	if o.interval == 0 {
		o.interval = (o.timeout / 3).Truncate(time.Millisecond)
	}
	if o.limit == 0 {
		o.limit = o.timeout + 10*time.Second
	}
	switch {
	case o.interval < 10*time.Millisecond:
		return fmt.Errorf("interval %v: expected at least 10ms", o.interval)
	case o.timeout <= o.interval:
		return fmt.Errorf("timeout %v: expected more than the interval, %v", o.timeout, o.interval)
	case o.timeout > 10*time.Minute:
		return fmt.Errorf("timeout %v: expected at most 10m", o.timeout)
	case o.limit < 0:
		return fmt.Errorf("limit %v: expected more than 0", o.limit)
	}
	return nil
}
