// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

const usage = `pgwatchdog exchanges heartbeats with the conmgrs of client hosts for the
PostgreSQL instance beside it, and ends the sessions of client hosts that died.

Usage:
  pgwatchdog [OPTION]...

Options:
  -d, --dsn=CONNINFO        the instance, by its Unix socket if possible
                            (default: libpq's environment and defaults)
  -s, --state-dir=DIR       own files (default /var/lib/pgconmgr/pgwatchdog)
  -f, --config=FILE         settings besides postgresql.conf
                            (default /etc/pgconmgr/pgwatchdog.conf, which may be missing)
  -k, --key-file=FILE       keys of which conmgrs must prove one (see cm_ctl keygen);
                            without, heartbeats are not authenticated
      --run-dir=DIR         where the SQL extension watchdog finds what it shows
                            (default /run/pgconmgr; empty: it shows nothing)
  -c, --set NAME=VALUE      set watchdog.NAME; beats file and postgresql.conf
      --log-format=FORMAT   auto, text, color or json (default auto)
      --log-level=LEVEL     debug, info, warn or error (default info)
  -V, --version             print the version and exit
  -?, --help                print this help and exit

pgwatchdog.conf may also set dsn, state_dir, key_file, run_dir, log_format and
log_level.
`

var (
	errHelp    = errors.New("help")
	errVersion = errors.New("version")
)

// options are the command line.
type options struct {
	dsn, stateDir, config string
	keyFile, runDir       string
	given                 func(flag string) bool // on the command line
	configNamed           bool
	settings              []conf.Entry
	logFormat             string
	logLevel              slog.Level
}

func parse(args []string) (*options, error) {
	o := new(options)
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVarP(&o.dsn, "dsn", "d", "", "")
	flags.StringVarP(&o.stateDir, "state-dir", "s", "/var/lib/pgconmgr/pgwatchdog", "")
	flags.StringVarP(&o.config, "config", "f", watchdog.ConfigFile, "")
	flags.StringVarP(&o.keyFile, "key-file", "k", "", "")
	flags.StringVar(&o.runDir, "run-dir", watchdog.DefaultRunDir, "")
	flags.StringVar(&o.logFormat, "log-format", "auto", "")
	sets := flags.StringArrayP("set", "c", nil, "")
	level := flags.String("log-level", "info", "")
	help := flags.BoolP("help", "?", false, "")
	version := flags.BoolP("version", "V", false, "")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case *help:
		return nil, errHelp
	case *version:
		return nil, errVersion
	case flags.NArg() > 0:
		return nil, fmt.Errorf("too many arguments, the first is %q", flags.Arg(0))
	}
	o.configNamed, o.given = flags.Changed("config"), flags.Changed
	if err := o.logLevel.UnmarshalText([]byte(*level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: expected debug, info, warn or error", *level)
	}
	return o, o.readSets(*sets)
}

// takeOwn applies the settings of pgwatchdog.conf that must be known before the
// instance is asked, unless the command line has them.
func (o *options) takeOwn(own map[string]conf.Entry) error {
	level := o.logLevel.String()
	for name, setting := range map[string]struct {
		flag string
		to   *string
	}{
		"dsn": {"dsn", &o.dsn}, "state_dir": {"state-dir", &o.stateDir}, "key_file": {"key-file", &o.keyFile},
		"run_dir":    {"run-dir", &o.runDir},
		"log_format": {"log-format", &o.logFormat}, "log_level": {"log-level", &level},
	} {
		if e, ok := own[name]; ok && !o.given(setting.flag) {
			*setting.to = e.Value
		}
	}
	if err := o.logLevel.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("%s: log_level %q: expected debug, info, warn or error", o.config, level)
	}
	return nil
}

func (o *options) readSets(sets []string) error {
	for _, set := range sets {
		name, value, ok := strings.Cut(set, "=")
		if !ok {
			return fmt.Errorf("--set %q: expected NAME=VALUE", set)
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if !strings.HasPrefix(name, "watchdog.") {
			name = "watchdog." + name
		}
		o.settings = append(o.settings, conf.Entry{Name: name, Value: strings.TrimSpace(value), File: "--set " + set})
	}
	if err := watchdog.CheckNames(o.settings); err != nil {
		return err
	}
	return watchdog.CheckValues(o.settings)
}
