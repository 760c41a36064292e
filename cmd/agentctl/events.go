// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

var eventsVerb = verb{"events", "show what pgwatchdog did, and why", eventsUsage, events, false}

const eventsUsage = `agentctl events shows the records of pgwatchdog: which client host was lost and
on what evidence, which sessions were ended, which survived and why. "Why was my
session killed?": agentctl events --expanded --pid PID, or --peer CLIENT_ADDR.

Usage:
  agentctl events [OPTION]...

Options:
      --peer=ADDR|PREFIX  only about these client hosts (several --peer: any)
      --pid=PID           only those that name this session (several --pid: any)
      --since=TIME        only from then on: 30min, 2h, 1d ago, or a time as
                          "2026-11-25 14:00" or 2026-11-25T14:00:00Z
  -x, --expanded          all that is recorded, a line for each field
      --json              the records as they are, one JSON object per line
      --follow            go on with new records; ends with Ctrl-C
      --state-dir=DIR     of pgwatchdog (default: the only one of
                          /var/lib/pgconmgr/pgwatchdog and pgwatchdog-*), which
                          root and the user of pgwatchdog can read
  -?, --help              print this help and exit

Columns: time, event, peer, outcome, case (what the verdict was), silence before
it, ended (database sessions gone / covered by the verdict), survivors, sockets,
error, evidence, and more: what other versions of pgwatchdog record besides. A
terminal that is too narrow shows the most important ones. pgwatchdog keeps
about two mebibytes of records.
`

// eventsOptions are the command line of "events".
type eventsOptions struct {
	stateDir string
	peers    []netip.Prefix
	pids     []int64
	since    time.Time // zero: all
	expanded bool
	json     bool
	follow   bool
}

func parseEvents(flags *pflag.FlagSet, args []string, now time.Time) (o eventsOptions, err error) {
	flags.StringVar(&o.stateDir, "state-dir", "", "")
	peers := flags.StringArray("peer", nil, "")
	pids := flags.StringArray("pid", nil, "")
	since := flags.String("since", "", "")
	flags.BoolVarP(&o.expanded, "expanded", "x", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.BoolVar(&o.follow, "follow", false, "")
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	if o.expanded && o.json {
		return o, usageError("options --expanded and --json contradict each other: expected one of them")
	}
	if o.peers, err = parsePeers(*peers); err != nil {
		return o, err
	}
	for _, text := range *pids {
		pid, err := strconv.ParseInt(text, 10, 32)
		if err != nil || pid <= 0 {
			return o, usageError("--pid %q: expected the number of a process", text)
		}
		o.pids = append(o.pids, pid)
	}
	if flags.Changed("since") {
		o.since, err = parseSince(*since, now)
	}
	return o, err
}

// parseSince reads a moment, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := conf.ParseDuration(text, time.Second, 0, 100*365*24*time.Hour); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usageError("--since %q: expected a time as 30min, 2h, 1d, \"2026-11-25 14:00\" or 2026-11-25T14:00:00Z", text)
}

// wants decides one record.
func (o *eventsOptions) wants(r *record) bool {
	return !r.Time.Before(o.since) && r.isAbout(o.peers) && r.names(o.pids)
}

func events(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseEvents(flags, args, e.now())
	if err != nil {
		return err
	}
	dir, err := e.stateDir(o.stateDir)
	if err != nil {
		return err
	}
	reader := watchdog.NewEventReader(dir)
	defer reader.Close()
	ticker := time.NewTicker(e.tick)
	defer ticker.Stop()
	p := &eventPrinter{e: e, o: &o}
	for first := true; ; first = false {
		records, err := reader.Next()
		if err != nil {
			return readError(dir, err)
		}
		if err := p.print(records, first); err != nil {
			return err
		}
		p.complain(reader)
		if !o.follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// readError says what to do about a directory that cannot be read.
func readError(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run as root or as the user of pgwatchdog", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no state directory %s: expected --state-dir as pgwatchdog has it", dir)
	}
	return err
}
