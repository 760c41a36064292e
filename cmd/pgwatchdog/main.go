// SPDX-License-Identifier: Apache-2.0

// Command pgwatchdog is the agent beside a PostgreSQL instance. It runs in the
// foreground, under systemd with Type=notify or under any other supervisor.
//
//	pgwatchdog --dsn CONNINFO --state-dir DIR
//
// SIGTERM and SIGINT stop it; conmgrs are told and keep their applications. A
// second one of them kills. SIGHUP reads the configuration again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

const program = "pgwatchdog"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args)
	switch {
	case errors.Is(err, errHelp):
		fmt.Fprint(stdout, usage)
		return cli.ExitOK
	case errors.Is(err, errVersion):
		fmt.Fprintln(stdout, cli.VersionLine(program))
		return cli.ExitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: error: %v\nTry \"%s --help\".\n", program, err, program)
		return cli.ExitUsage
	}
	if err := serve(o, stderr); err != nil {
		fmt.Fprintf(stderr, "%s: error: %v\n", program, err)
		return cli.ExitFailure
	}
	return cli.ExitOK
}

func serve(o *options, stderr io.Writer) error {
	// Before anything else, so that no signal finds its default action.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// Otherwise a closed pipe behind stderr would kill (see os/signal, SIGPIPE).
	signal.Ignore(unix.SIGPIPE)
	queue := cli.NewQueue(stderr)
	defer queue.Close()
	log, err := cli.NewLogger(cli.LogOptions{Stderr: queue, Format: o.logFormat, Level: o.logLevel})
	if err != nil {
		return err
	}
	file, err := readConfig(o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.stateDir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	unix.Umask(0o077)
	keepHeapSmall()
	cli.AddProcessors(1)
	if err := cli.ShortenSlices(); err != nil {
		log.Warn("a busy machine may delay heartbeats more than it has to", "err", err)
	}
	m, err := meetManager(log)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		stop() // the next signal kills
		m.tell(m.notifier.Stopping)
	})
	return watchdog.Run(ctx, watchdog.Options{
		DSN: o.dsn, State: o.stateDir, KeyFile: o.keyFile, RunDir: o.runDir, File: file, Flags: o.settings,
		Version: cli.Version, Log: log,
		Reload: reloads(ctx, hup, o, log),
		Ready:  func() { m.tell(m.notifier.Ready) },
		Alive:  func() { m.tell(m.notifier.Alive) }, AliveEvery: m.aliveEvery,
		Sockets: m.notifier, Inherited: m.inherited,
		Metrics: serveMetrics(log),
	})
}

// heapPercent is how much garbage may lie around, in percent of what is in use. A
// running agent makes next to none, so a small number saves memory and costs
// nothing.
const heapPercent = 20

// keepHeapSmall leaves the last word to whoever sets GOGC.
func keepHeapSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapPercent)
	}
}

// readConfig reads pgwatchdog.conf. The default one need not exist, one that was
// named must.
func readConfig(o *options) ([]conf.Entry, error) {
	f, err := watchdog.ReadFile(o.config)
	if errors.Is(err, fs.ErrNotExist) && !o.configNamed {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f.Settings, o.takeOwn(f.Own)
}

// reloads delivers the file's entries at every SIGHUP. A file that cannot be
// read changes nothing.
func reloads(ctx context.Context, hup <-chan os.Signal, o *options, log *slog.Logger) <-chan []conf.Entry {
	out := make(chan []conf.Entry)
	go deliverReloads(ctx, hup, out, o, log)
	return out
}

func deliverReloads(ctx context.Context, hup <-chan os.Signal, out chan<- []conf.Entry, o *options, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		entries, err := readConfig(o)
		if err != nil {
			log.Error("configuration not reloaded", "err", err)
			continue
		}
		select {
		case out <- entries:
		case <-ctx.Done():
			return
		}
	}
}
