// SPDX-License-Identifier: Apache-2.0

// Command cm_ctl starts and stops conmgr and shows its state, as pg_ctl does for
// PostgreSQL. It is used by the user who owns conmgr's directory, never by root
// (but for keygen). It talks to a running conmgr over conmgr.sock in the directory.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

const program = "cm_ctl"

const usage = `cm_ctl starts and stops conmgr and shows its state.

Usage:
  cm_ctl start    [-D DIR] [-W] [--complete] [-t SECONDS]
  cm_ctl stop     [-D DIR] [-W] [-m smart|fast|immediate] [-t SECONDS]
  cm_ctl restart  [-D DIR] [-W] [--complete] [-t SECONDS]
  cm_ctl status   [-D DIR] [-t SECONDS] [-i all|instance|application] [--json]
  cm_ctl check    [-D DIR]
  cm_ctl keygen   [-D DIR] [-o FILE] [--append] [--id ID] [CLIENT]...
  cm_ctl help

start waits until the heartbeat with the primary is established, stop until
conmgr is gone. check reads conmgr.conf and tells every mistake in it. keygen
makes a key for the heartbeat, which watchdogs take from conmgrs at the CLIENTs
only: addresses or CIDR blocks, all when there is none.

Options:
  -D, --directory=DIR    directory of conmgr (default: environment variable CMDATA)
  -W, --no-wait          do not wait
      --complete         wait for the heartbeat with every instance
  -t, --timeout=SECONDS  how long to wait (default 60; 10 for status)
  -m, --mode=MODE        how to stop (default fast):
                           smart      when no application is left
                           fast       disconnect the applications
                           immediate  at once, without a word to them
  -i, --info=WHAT        what to show (default all)
      --json             one JSON object
  -o, --output=FILE      key file to write (default heartbeat.key in DIR)
      --append           add the key to a key file that exists
      --id=ID            name of the key (default: a random one)
  -V, --version          print the version and exit
  -?, --help             print this help and exit

Exit code: 0 done, 1 failed or not in time, 2 wrong usage, 3 status: not running.
`

// env is what the program knows of the world around it.
type env struct {
	args           []string // without the program's name
	stdout, stderr io.Writer
	getenv         func(string) string
	uid, euid      int
	executable     func() (string, error) // path of cm_ctl itself: conmgr is beside it
	poll           time.Duration          // between two looks while waiting
	dot            time.Duration          // between two dots of progress
}

func main() {
	// The PG* variables are meant for the applications; here they would bend
	// the connection to conmgr.sock (PGSERVICE, PGTARGETSESSIONATTRS, ...).
	for _, setting := range os.Environ() {
		if name, _, _ := strings.Cut(setting, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(run(env{
		args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, uid: os.Getuid(), euid: os.Geteuid(),
		executable: os.Executable, poll: 50 * time.Millisecond, dot: time.Second,
	}))
}

// verbs are the commands, each with the options it takes besides -D.
var verbs = map[string]struct {
	run     func(env, *conmgr.Directory, options) int
	options []string
	timeout time.Duration
}{
	"start":   {start, []string{"no-wait", "complete", "timeout"}, 60 * time.Second},
	"stop":    {stop, []string{"no-wait", "mode", "timeout"}, 60 * time.Second},
	"restart": {restart, []string{"no-wait", "complete", "timeout"}, 60 * time.Second},
	"status":  {status, []string{"timeout", "info", "json"}, 10 * time.Second},
	"check":   {check, nil, 0},
	"keygen":  {nil, []string{"output", "append", "id"}, 0},
}

func run(e env) int {
	o, err := parseOptions(e.args, e.getenv("CMDATA"))
	switch {
	case err != nil:
		fail(e, err)
		fmt.Fprintf(e.stderr, "Try \"%s --help\" for more information.\n", program)
		return cli.ExitUsage
	case o.help:
		fmt.Fprint(e.stdout, usage)
		return cli.ExitOK
	case o.version:
		fmt.Fprintln(e.stdout, cli.VersionLine(program))
		return cli.ExitOK
	}
	if o.verb == "keygen" { // may be anybody, without a directory of conmgr
		return keygen(e, o)
	}
	if err := cli.CheckUser(program, e.uid, e.euid); err != nil {
		return fail(e, err)
	}
	d, err := conmgr.OpenDirectory(o.directory)
	if err != nil {
		return fail(e, err)
	}
	return verbs[o.verb].run(e, d, o)
}

// fail prints an error and returns the exit code for it.
func fail(e env, err error) int {
	fmt.Fprintf(e.stderr, "%s: error: %v\n", program, err)
	return cli.ExitFailure
}

// warn prints what went wrong without stopping the command.
func warn(e env, format string, args ...any) {
	fmt.Fprintf(e.stderr, "%s: warning: %s\n", program, fmt.Sprintf(format, args...))
}
