// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// options are the command line.
type options struct {
	verb      string
	directory string
	noWait    bool
	complete  bool
	timeout   time.Duration
	mode      string // smart, fast or immediate
	info      string // all, instance or application
	json      bool
	output    string // key file, "" for the one in the directory
	append    bool
	id        wire.ID        // of the new key
	clients   []netip.Prefix // that it is bound to
	help      bool
	version   bool
}

// parseOptions reads the command line. Options may stand before and behind the
// verb; one that the verb does not take is an error.
func parseOptions(args []string, directory string) (options, error) {
	var o options
	var timeout, id string
	flags := pflag.NewFlagSet(program, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVarP(&o.directory, "directory", "D", directory, "")
	flags.BoolVarP(&o.noWait, "no-wait", "W", false, "")
	flags.BoolVar(&o.complete, "complete", false, "")
	flags.StringVarP(&timeout, "timeout", "t", "", "")
	flags.StringVarP(&o.mode, "mode", "m", "fast", "")
	flags.StringVarP(&o.info, "info", "i", "all", "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.StringVarP(&o.output, "output", "o", "", "")
	flags.BoolVar(&o.append, "append", false, "")
	flags.StringVar(&id, "id", randomID(), "")
	flags.BoolVarP(&o.help, "help", "?", false, "")
	flags.BoolVarP(&o.version, "version", "V", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.verb = flags.Arg(0); o.help || o.version || o.verb == "help" {
		o.help = !o.version
		return o, nil
	}
	if err := checkVerb(flags); err != nil {
		return o, err
	}
	if o.verb == "keygen" {
		return o, o.checkKey(id, flags.Args()[1:])
	}
	return o, o.checkValues(flags.Changed("timeout"), timeout)
}

func checkVerb(flags *pflag.FlagSet) error {
	names := strings.Join(slices.Sorted(maps.Keys(verbs)), ", ")
	if flags.NArg() == 0 {
		return fmt.Errorf("no command: expected one of %s", names)
	}
	verb, ok := verbs[flags.Arg(0)]
	if !ok {
		return fmt.Errorf("unknown command %q: expected one of %s", flags.Arg(0), names)
	}
	if flags.NArg() > 1 && flags.Arg(0) != "keygen" {
		return fmt.Errorf("too many arguments, the first is %q", flags.Arg(1))
	}
	var err error
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "directory" && !slices.Contains(verb.options, f.Name) && err == nil {
			err = fmt.Errorf("%s does not take the option --%s", flags.Arg(0), f.Name)
		}
	})
	return err
}

func (o *options) checkValues(timeoutSet bool, timeout string) (err error) {
	o.timeout = verbs[o.verb].timeout
	if timeoutSet {
		o.timeout, err = conf.ParseDuration(timeout, time.Second, time.Millisecond, 2147483*time.Second)
		if err != nil {
			return fmt.Errorf("option -t: %w", err)
		}
	}
	if o.mode, err = conf.ParseWord(o.mode, []string{"smart", "fast", "immediate"}); err != nil {
		return fmt.Errorf("option -m: %w", err)
	}
	if o.info, err = conf.ParseWord(o.info, []string{"all", "instance", "application"}); err != nil {
		return fmt.Errorf("option -i: %w", err)
	}
	if o.noWait && o.complete {
		return errors.New("options -W and --complete contradict each other: expected one of them")
	}
	return nil
}
