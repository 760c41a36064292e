// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

var doctorVerb = verb{"doctor", "say what works here and what to do about the rest", doctorUsage, diagnose, false}

const doctorUsage = `agentctl doctor tries each ability that pgwatchdog uses, by the code that
pgwatchdog uses, and says what to do where one is missing. It changes nothing;
the one socket that it destroys is its own, on loopback.

What it finds is true of the user and the rights that it runs with. For those of
the agent, run it as the agent is run:
  setpriv --reuid pgwatchdog --regid pgwatchdog --init-groups \
      --inh-caps +net_admin,+bpf,+perfmon \
      --ambient-caps +net_admin,+bpf,+perfmon agentctl doctor

Usage:
  agentctl doctor [OPTION]...

Options:
  --dsn=CONNINFO         the instance, as pgwatchdog reaches it (default: dsn of
                         pgwatchdog.conf; without both it is not asked)
  --state-dir=DIR        of the pgwatchdog that runs here (default: state_dir of
                         pgwatchdog.conf, else the only one of
                         /var/lib/pgconmgr/pgwatchdog and pgwatchdog-*)
  --key-file=FILE        the keys (default: key_file of pgwatchdog.conf)
  --config=FILE          pgwatchdog.conf
                         (default /etc/pgconmgr/pgwatchdog.conf, may be missing)
  --netns=NAME|PATH      sock destroy and the link sources in another network
                         namespace: a name of ip-netns, or a path as
                         /proc/PID/ns/net (root)
  --json                 one JSON object per line and check: check, result,
                         detail, advice (null when there is nothing to do)
  -?, --help             print this help and exit

Checks:
  sock destroy           close sockets of dead clients: CAP_NET_ADMIN and
                         CONFIG_INET_DIAG_DESTROY
  fentry, kprobe, carrier counter, rtnetlink
                         see the loss of a link, the best source first
  pidfd                  see the death of the postmaster
  inotify                see a promotion by postmaster.pid
  clock, wall clock      timers of the boot-time clock; whether the time of day,
                         which only logs and records use, is synchronised
  descriptors            the limit on open files against what the agent needs
  pgwatchdog.conf, key file
                         readable, well-formed, closed to others
  database               the agent can log in
  unix socket            it knows the postmaster's pid
  pg_read_all_stats, pg_signal_backend
                         it finds and ends the sessions of a dead client
  reserved connection    it gets in when max_connections is exhausted
  superuser sessions     whether it can end those, too: the extension watchdog
  data directory         it may watch it
  placeholders           the watchdog.* settings of the instance: misspelt
                         names, bad values
  preload libraries      watchdog is not among them, or the instance would not
                         start
  agent                  pgwatchdog runs and answers on its control socket; with
                         its own rights, which the rest is about:
  kills                  not paused, and no dry run
  agent instance         it knows the state of the instance; otherwise conmgrs
                         call it unmonitored
  agent database         both connections and the rights of its role
  agent sockets, agent link source, agent descriptors
                         as above, as the agent has found it
  fuse                   whether it holds verdicts, or has
  stalls                 whether the agent itself stood still

Results: works; missing; warning, works worse or not needed as it is; skipped,
with what it needs to be checked.

Exit code:
  0  nothing is missing
  1  something is missing
  2  wrong usage
`

// result is what became of a check. Its text is an interface for scripts.
type result string

const (
	works   result = "works"
	missing result = "missing"
	warning result = "warning"
	skipped result = "skipped"
)

// finding is the answer to one check.
type finding struct {
	Check  string  `json:"check"`
	Result result  `json:"result"`
	Detail string  `json:"detail"`
	Advice *string `json:"advice"` // nil: nothing to do
}

// doctorOptions are the command line of "doctor".
type doctorOptions struct {
	dsn, keyFile, config, netns string
	stateDir                    string
	dsnGiven, configGiven       bool
	json                        bool
}

func parseDoctor(flags *pflag.FlagSet, args []string) (o doctorOptions, err error) {
	flags.StringVar(&o.dsn, "dsn", "", "")
	flags.StringVar(&o.keyFile, "key-file", "", "")
	flags.StringVar(&o.config, "config", watchdog.ConfigFile, "")
	flags.StringVar(&o.netns, "netns", "", "")
	flags.StringVar(&o.stateDir, "state-dir", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	o.dsnGiven, o.configGiven = flags.Changed("dsn"), flags.Changed("config")
	for _, name := range []string{"key-file", "config", "netns", "state-dir"} {
		if f := flags.Lookup(name); f.Changed && f.Value.String() == "" {
			return o, usageError("--%s \"\": expected a name", name)
		}
	}
	return o, nil
}

// doctor collects findings, in the order of the help.
type doctor struct {
	kernel      kernel
	options     doctorOptions
	file        *watchdog.File        // pgwatchdog.conf; nil: there is none to use
	instance    *watchdog.Examination // nil: not asked, or it did not answer
	instanceErr error                 // why it did not
	findings    []finding
}

func (d *doctor) add(check string, r result, detail, advice string) {
	d.findings = append(d.findings, finding{check, r, oneLine(detail), unless("", oneLine(advice))})
}

func diagnose(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseDoctor(flags, args)
	if err != nil {
		return err
	}
	d := &doctor{kernel: e.kernel, options: o}
	if err := inNamespace(o.netns, func() error { d.checkNamespace(ctx); return nil }); err != nil {
		return err
	}
	d.checkKernel()
	d.readConfig()
	if err := d.examine(ctx); err != nil {
		return err
	}
	d.checkFiles()
	d.checkInstance()
	d.checkRunning(ctx, e)

	n := notes{e: e}
	if os.Geteuid() == 0 {
		n.print([]string{"checked with the rights of root: see --help for those of pgwatchdog's user"})
	}
	return cmp.Or(d.print(e), d.verdict())
}

// verdict is an error when something is missing.
func (d *doctor) verdict() error {
	lacking := d.count(missing)
	if lacking == 0 {
		return nil
	}
	return &exitError{cli.ExitFailure, fmt.Errorf("%d of %s found something missing", lacking, plural(len(d.findings), "check"))}
}

func (d *doctor) count(r result) (n int) {
	for _, f := range d.findings {
		if f.Result == r {
			n++
		}
	}
	return n
}

func (d *doctor) print(e *env) error {
	if d.options.json {
		for _, f := range d.findings {
			if err := printJSON(e.stdout, f); err != nil {
				return err
			}
		}
		return nil
	}
	columns, _ := e.size()
	text := findingsText(d.findings, columns)
	if columns > 0 {
		var counts []string
		for _, r := range []result{works, missing, warning, skipped} {
			counts = append(counts, fmt.Sprintf("%d %s", d.count(r), r))
		}
		text += wrap(plural(len(d.findings), "check")+": "+strings.Join(counts, ", "), columns) + "\n"
	}
	_, err := fmt.Fprint(e.stdout, text)
	return err
}
