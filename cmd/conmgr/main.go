// SPDX-License-Identifier: Apache-2.0

// Command conmgr is the client daemon of pgconmgr. It runs in the foreground;
// cm_ctl start detaches it.
//
//	conmgr -D DIR
//
// SIGTERM and SIGINT are a fast shutdown, SIGQUIT an immediate one, and SIGUSR2 one
// that tells everybody that conmgr comes back, for service managers that restart it;
// a second one of them kills. SIGHUP reads the key file again; every parameter needs a restart.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

const program = "conmgr"

const usage = `conmgr watches PostgreSQL instances for the applications of this host.

Usage:
  conmgr [-D DIR]

Options:
  -D, --directory=DIR   directory with conmgr.conf (default: environment variable CMDATA)
  -V, --version         print the version and exit
  -?, --help            print this help and exit

Use cm_ctl to start it in the background, to stop it and to see its state.
`

// env is what the program knows of the world around it.
type env struct {
	args           []string // without the program's name
	stdout, stderr io.Writer
	getenv         func(string) string
	uid, euid      int
	now            func() time.Time
}

func main() {
	os.Exit(run(env{
		args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, uid: os.Getuid(), euid: os.Geteuid(), now: time.Now,
	}))
}

func run(e env) int {
	dir, exit, done := parse(e)
	if done {
		return exit
	}
	if err := start(e, dir); err != nil {
		fmt.Fprintf(e.stderr, "%s: error: %v\n", program, err)
		return cli.ExitFailure
	}
	return cli.ExitOK
}

// parse reads the command line; done means that there is nothing to run.
func parse(e env) (dir string, exit int, done bool) {
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVarP(&dir, "directory", "D", e.getenv("CMDATA"), "")
	version := flags.BoolP("version", "V", false, "")
	help := flags.BoolP("help", "?", false, "")
	err := flags.Parse(e.args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("too many arguments, the first is %q", flags.Arg(0))
	}
	switch {
	case err != nil:
		fmt.Fprintf(e.stderr, "%s: error: %v\nTry \"%s --help\".\n", program, err, program)
		return "", cli.ExitUsage, true
	case *help:
		fmt.Fprint(e.stdout, usage)
		return "", cli.ExitOK, true
	case *version:
		fmt.Fprintln(e.stdout, cli.VersionLine(program))
		return "", cli.ExitOK, true
	}
	return dir, 0, false
}

// start checks everything that can be wrong before the first socket is opened.
func start(e env, path string) error {
	if err := cli.CheckUser(program, e.uid, e.euid); err != nil {
		return err
	}
	dir, err := conmgr.OpenDirectory(path)
	if err != nil {
		return err
	}
	config, warnings, err := conmgr.Load(dir.ConfigPath())
	if err != nil {
		return err
	}
	stderr := cli.NewQueue(e.stderr)
	defer stderr.Close()
	log, err := newLogger(e, config, stderr)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn(string(w))
	}
	cli.AddProcessors(1 + conmgr.RelayLoops())
	if err := cli.ShortenSlices(); err != nil {
		log.Warn("a busy machine may delay heartbeats more than it has to", "err", err)
	}
	err = serve(e, config, dir, log)
	if err != nil {
		log.Log(context.Background(), conmgr.LevelFatal, "conmgr ends", "err", err)
		if config.LogStderr {
			return errors.New("could not run, see the messages above")
		}
	}
	return err
}

func newLogger(e env, c *conmgr.Config, stderr *cli.Queue) (*slog.Logger, error) {
	o := cli.LogOptions{Level: c.LogMinMessages, LevelName: conmgr.LevelName, Getenv: e.getenv}
	if c.LogStderr {
		o.Stderr = stderr
	}
	if c.LogSyslog {
		o.Syslog = cli.NewSyslog(c.SyslogFacility, c.SyslogIdent, conmgr.SyslogSeverity, stderr)
	}
	return cli.NewLogger(o)
}

// serve claims the directory and runs until a shutdown.
func serve(e env, config *conmgr.Config, dir *conmgr.Directory, log *slog.Logger) error {
	limit, err := conmgr.RaiseDescriptors()
	if err != nil {
		log.Warn("limit on file descriptors stays", "limit", limit, "err", err)
	}
	if err := config.CheckDescriptors(limit); err != nil {
		return err
	}
	if w, ok := config.DescriptorsWarning(limit); ok {
		log.Warn(string(w))
	}
	unix.Umask(0o077)
	started := e.now()
	if err := dir.Claim(config.Port, started); err != nil {
		return err
	}
	defer func() {
		if err := dir.Release(); err != nil {
			log.Warn("pid file stays", "err", err)
		}
	}()
	// Not to hold the volume that conmgr happened to be started from.
	if err := os.Chdir(dir.Path()); err != nil {
		return fmt.Errorf("change directory: %w", err)
	}
	ctx, reload, stop := watchSignals(log)
	defer stop()
	notifier, err := cli.NewNotifier()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = notifier.Stopping() })
	log.Log(ctx, conmgr.LevelLog, "starting conmgr", "version", cli.Version, "pid", os.Getpid(), "directory", dir.Path(), "instances", len(config.Backends))
	err = conmgr.Run(ctx, conmgr.RunOptions{
		Config: config, Directory: dir, Log: log,
		Incarnation: uint64(started.UnixNano()), Version: cli.Version, Reload: reload, Metrics: serveMetrics(log),
		Ready: func() { _ = notifier.Ready() },
	})
	if err != nil {
		return err
	}
	log.Log(ctx, conmgr.LevelLog, "stopped conmgr", "pid", os.Getpid())
	return nil
}
