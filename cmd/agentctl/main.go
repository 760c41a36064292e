// SPDX-License-Identifier: Apache-2.0

// Command agentctl is for the administrator of a database host or a client host:
// it shows and destroys TCP sockets, shows what pgwatchdog knows, did and why, has it
// pause, and says what it can do here.
//
// Each command is one entry of verbs with a help text of its own, and lives in
// the file of its name. What a command knows of the world around it stands in
// env, so that tests run the whole program in their own process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

const program = "agentctl"

// Exit codes besides those of package cli.
const (
	exitRefused = 4 // nothing was done: it needs a flag that says so, or the answer was no
	exitPartly  = 5 // some sockets were destroyed, others are still there
)

// env is what the program knows of the world around it.
type env struct {
	args           []string // without the program's name
	stdin          io.Reader
	stdout, stderr io.Writer
	size           func() (columns, lines int) // of the terminal behind stdout; 0: it is none
	asks           bool                        // somebody can answer questions: stdin and stderr are terminals
	now            func() time.Time            // in the user's time zone
	tick           time.Duration               // between two looks for new events
	kernel         kernel                      // what doctor asks
	sudoUser       string                      // who became root to run it; may be empty

	states func() []string // the state directories of this host's agents

	// ask puts a question to a pgwatchdog.
	ask func(ctx context.Context, stateDir string, q control.Question) (*control.Reply, error)
}

// verb is one command.
type verb struct {
	name    string // "sockets kill": a second word for what changes something
	summary string
	usage   string
	run     func(context.Context, *env, *pflag.FlagSet, []string) error
	words   bool // it takes arguments that are no options
}

// verbs are the commands, in the order of the help.
var verbs = []verb{socketsVerb, killVerb, sessionsVerb, eventsVerb, pauseVerb, hintsVerb, doctorVerb}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal kills
	os.Exit(run(ctx, &env{
		args: os.Args[1:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		size: func() (int, int) { return cli.TerminalSize(os.Stdout) },
		asks: cli.IsTerminal(os.Stdin) && cli.IsTerminal(os.Stderr),
		now:  time.Now, tick: 200 * time.Millisecond, kernel: thisKernel(),
		sudoUser: os.Getenv("SUDO_USER"), ask: control.Ask,
		states: func() []string { return statesIn(filepath.Dir(defaultStateDir)) },
	}))
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func (e *exitError) Unwrap() error { return e.err }

// usageError says what was expected on the command line.
func usageError(format string, args ...any) error {
	return &exitError{cli.ExitUsage, fmt.Errorf(format, args...)}
}

// refused is an error after which nothing was done.
func refused(format string, args ...any) error {
	return &exitError{exitRefused, fmt.Errorf(format, args...)}
}

// run finds the command, runs it and returns the exit code.
func run(ctx context.Context, e *env) int {
	v, args, err := find(e.args)
	help := program
	if err == nil && v != nil {
		help += " " + v.name
		err = v.start(ctx, e, args)
	} else if err == nil {
		err = e.general(args)
	}
	if err == nil {
		return cli.ExitOK
	}
	fmt.Fprintf(e.stderr, "%s: error: %s\n", program, oneLine(err.Error()))
	exit := &exitError{code: cli.ExitFailure}
	_ = errors.As(err, &exit)
	if exit.code == cli.ExitUsage {
		fmt.Fprintf(e.stderr, "Try \"%s --help\" for more information.\n", help)
	}
	return exit.code
}

// find returns the command that the arguments begin with, and the rest of them.
// It is nil when they begin with none, but with an option or "help".
func find(args []string) (*verb, []string, error) {
	best := -1
	for i, v := range verbs {
		words := strings.Fields(v.name)
		fits := len(args) >= len(words) && slices.Equal(args[:len(words)], words)
		if fits && (best < 0 || len(v.name) > len(verbs[best].name)) {
			best = i
		}
	}
	switch {
	case best >= 0:
		rest := args[len(strings.Fields(verbs[best].name)):]
		if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && !verbs[best].words {
			return nil, nil, usageError("unknown command \"%s %s\": expected %s", verbs[best].name, rest[0], verbNames())
		}
		return &verbs[best], rest, nil
	case len(args) == 0:
		return nil, nil, usageError("no command: expected %s", verbNames())
	case args[0] != "help" && !strings.HasPrefix(args[0], "-"):
		return nil, nil, usageError("unknown command %q: expected %s", args[0], verbNames())
	}
	return nil, args, nil
}

func verbNames() string {
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = v.name
	}
	return strings.Join(names, ", ") + " or help"
}

// general answers what needs no command: "help [COMMAND]", --help, --version.
func (e *env) general(args []string) error {
	if args[0] == "help" && len(args) > 1 {
		v, rest, err := find(args[1:])
		if err != nil {
			return err
		}
		if v != nil && len(rest) == 0 {
			fmt.Fprint(e.stdout, v.usage)
			return nil
		}
		return usageError("help %s: expected %s", strings.Join(args[1:], " "), verbNames())
	}
	switch args[0] {
	case "help", "--help", "-?", "-h":
		fmt.Fprint(e.stdout, usage())
	case "--version", "-V":
		fmt.Fprintln(e.stdout, cli.VersionLine(program))
	default:
		return usageError("option %s stands before the command: expected %s first", args[0], verbNames())
	}
	return nil
}

// start runs the command, or prints its help.
func (v *verb) start(ctx context.Context, e *env, args []string) error {
	flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	if slices.Contains(args, "--help") || slices.Contains(args, "-?") || slices.Contains(args, "-h") {
		fmt.Fprint(e.stdout, v.usage)
		return nil
	}
	return v.run(ctx, e, flags, args)
}

func usage() string {
	var b strings.Builder
	b.WriteString("agentctl shows and destroys TCP sockets, shows what pgwatchdog knows, did and\nwhy, has it pause, and says what it can do here.\n\nCommands:\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "  %s %-13s %s\n", program, v.name, v.summary)
	}
	b.WriteString(usageEnd)
	return b.String()
}

const usageEnd = `
"agentctl COMMAND --help" says more. Options that all take:
  -V, --version          print the version and exit (without a command)
  -?, --help             print help and exit

Exit code: 0 done or nothing to do, 1 failed, or doctor found something missing,
2 wrong usage, 4 refused without a flag that says so, 5 some sockets are
destroyed and others are not.
`
