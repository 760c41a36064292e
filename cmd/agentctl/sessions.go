// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

var sessionsVerb = verb{"sessions", "show the heartbeat sessions of pgwatchdog", sessionsUsage, showSessions, false}

const sessionsUsage = `agentctl sessions shows the heartbeat sessions of the pgwatchdog that runs here:
which conmgr is connected, how alive it is, and what becomes of the clients
whose session has ended.

Usage:
  agentctl sessions [OPTION]...

Options:
      --peer=ADDR|PREFIX  only of these client hosts (several --peer: any)
      --state=STATE,...   only in these states: init, up, late, suspect, down
      --json              one JSON object per line and session, see below
      --watch[=INTERVAL]  again and again (default 2s); ends with Ctrl-C
      --state-dir=DIR     of pgwatchdog (default: the only one of
                          /var/lib/pgconmgr/pgwatchdog and pgwatchdog-*), whose
                          control socket root and the user of pgwatchdog can use
  -?, --help              print this help and exit

Columns. A terminal that is too narrow shows the most important ones and says
which are missing; a pipe gets all.
  client      address and port of the conmgr
  state       init: shaking hands. up; late: nothing heard for 1.25 intervals;
              suspect: the silence is doubtful. down: no session any more
  client is   armed; waiting: its session ended, and it has so long to come
              back; spared: another conmgr of the address lives; suspended: its
              database sessions would be terminated, but kills are paused;
              warranted: they are being terminated; protected by
              watchdog.protect. "-": never armed
  beats       interval x timeout
  rtt         round trip of the heartbeat
  heard       time since the last valid beat
  loss        beats of the conmgr that were lost on the way
  over        transport: tcp or udp
  key         name of its key; "-": without one
  armed       time since the session was armed
  why         why the state changed last; of an ended session, why it ended
  session, gen
              number of the session; how many this conmgr has had
  conmgr      its lasting identity

JSON. What is unknown or not applicable is left out. Times are milliseconds;
session and incarnation are strings, as they do not fit the numbers of every
reader.
  address, port, transport, key, state, reason, interval_ms, timeout_ms, rtt_ms,
  heard_ago_ms, received, lost, sent, sent_lost (frames), held (its verdict, by
  the fuse), armed, session, generation, conmgr, incarnation, protected,
  relation ("client is"), case, left_ms (of a wait), warrant, silent_ms (before
  the session ended)

Exit code: 0, also when there is no session; 1 when no pgwatchdog answers;
2 wrong usage.
`

// agentLimit bounds one question to pgwatchdog.
const agentLimit = 10 * time.Second

// sessionStates are what --state takes, in the order of a session's life.
var sessionStates = []string{"init", "up", "late", "suspect", "down"}

// sessionsOptions are the command line of "sessions".
type sessionsOptions struct {
	stateDir string
	peers    []netip.Prefix
	states   []string // empty: all
	json     bool
	watch    time.Duration // 0: once
}

func parseSessions(flags *pflag.FlagSet, args []string) (o sessionsOptions, err error) {
	flags.StringVar(&o.stateDir, "state-dir", "", "")
	peers := flags.StringArray("peer", nil, "")
	states := flags.StringArray("state", nil, "")
	flags.BoolVar(&o.json, "json", false, "")
	watch := watchFlag(flags)
	if err := parseFlags(flags, args); err != nil {
		return o, err
	}
	if o.peers, err = parsePeers(*peers); err != nil {
		return o, err
	}
	if len(*states) > 0 {
		o.states = strings.Split(strings.Join(*states, ","), ",")
	}
	for _, s := range o.states {
		if !slices.Contains(sessionStates, s) {
			return o, usageError("--state %q: expected %s", s, strings.Join(sessionStates, ", "))
		}
	}
	o.watch, err = parseWatch(flags, *watch)
	return o, err
}

// parsePeers reads client hosts, which have no zone here.
func parsePeers(texts []string) (peers []netip.Prefix, err error) {
	for _, text := range texts {
		p, zone, err := parsePrefix("--peer", text)
		if err == nil && zone != "" {
			err = usageError("--peer %q: expected an address without an interface", text)
		}
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// wants decides one session.
func (o *sessionsOptions) wants(s *control.Session) bool {
	fits := func(p netip.Prefix) bool { return p.Contains(s.Addr) }
	return (len(o.peers) == 0 || slices.ContainsFunc(o.peers, fits)) && (len(o.states) == 0 || slices.Contains(o.states, s.State))
}

func showSessions(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parseSessions(flags, args)
	if err != nil {
		return err
	}
	look := func(ctx context.Context) (*picture, error) {
		reply, err := e.askAgent(ctx, o.stateDir, control.Question{Do: control.DoSessions})
		if err != nil {
			return nil, err
		}
		return sessionsPicture(e.now(), reply, &o), nil
	}
	if o.watch > 0 {
		return watch(ctx, e, o.watch, o.json, look)
	}
	p, err := look(ctx)
	if err != nil {
		return err
	}
	return p.print(e, o.json)
}

// askAgent puts a question to the pgwatchdog of a state directory (see stateDir), and says what to
// do when nobody answers.
func (e *env) askAgent(ctx context.Context, named string, q control.Question) (*control.Reply, error) {
	stateDir, err := e.stateDir(named)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, agentLimit)
	defer cancel()
	reply, err := e.ask(ctx, stateDir, q)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run as root or as the user of pgwatchdog", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no pgwatchdog answers in %s: expected a running one, and --state-dir as it has it", stateDir)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("pgwatchdog does not answer within %s: %w", agentLimit, err)
	}
	return reply, err
}

// compareSessions orders sessions for people: by client host.
func compareSessions(a, b control.Session) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Conmgr, b.Conmgr), cmp.Compare(a.Session, b.Session))
}
