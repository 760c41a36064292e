// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/watchdog"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

var pauseVerb = verb{"pause", "suspend terminations for a while", pauseUsage, pause, true}

const pauseUsage = `agentctl pause has pgwatchdog terminate nobody for a while, as for work on the
network. Heartbeats and verdicts go on. The pause ends by itself, survives a
restart of pgwatchdog, and shows in agentctl sessions, doctor and events, in
cm_ctl status of the clients, in the metrics, and in the log.

Usage:
  agentctl pause [DURATION] [OPTION]...

DURATION has a unit: 90s, 30m, 2h (default 30m, at most 24h). A pause that runs
is replaced, by a shorter one too.

Options:
      --resume         end the pause now
      --status         only show whether kills are paused
      --reason=TEXT    what for, at most 200 bytes; it shows beside the pause
      --json           one JSON object: kills (enabled, paused, dry run), and of
                       a pause since, until, left_ms, by, reason
      --state-dir=DIR  of pgwatchdog (default: the only one of
                       /var/lib/pgconmgr/pgwatchdog and pgwatchdog-*), whose
                       control socket root and the user of pgwatchdog can use
  -?, --help           print this help and exit

What happens meanwhile: terminations under way are stopped. A client that is
found dead is recorded ("warrant suspended", outcome paused) and its database
sessions live on. When the pause is over it gets one more timeout, at least 3 s:
who comes back is let alone; who does not is terminated then, and only the
sessions from before it was lost. To spare these too, set watchdog.dry_run = on
before the pause ends.

Exit code: 0; 1 when no pgwatchdog answers or it refuses; 2 wrong usage.
`

// defaultPause is how long a pause is unless somebody says so.
const defaultPause = 30 * time.Minute

// pauseOptions are the command line of "pause".
type pauseOptions struct {
	stateDir string
	question control.Question
	json     bool
}

func parsePause(flags *pflag.FlagSet, args []string) (o pauseOptions, err error) {
	flags.StringVar(&o.stateDir, "state-dir", "", "")
	resume := flags.Bool("resume", false, "")
	status := flags.Bool("status", false, "")
	flags.StringVar(&o.question.Reason, "reason", "", "")
	flags.BoolVar(&o.json, "json", false, "")
	words, err := parseWords(flags, args)
	if err != nil {
		return o, err
	}
	d := defaultPause
	switch {
	case *resume && *status:
		return o, usageError("options --resume and --status contradict each other: expected one of them")
	case (*resume || *status) && (len(words) > 0 || o.question.Reason != ""):
		return o, usageError("a duration and --reason go with a new pause: expected neither of them here")
	case *resume:
		o.question.Do = control.DoResume
		return o, nil
	case *status:
		o.question.Do = control.DoStatus
		return o, nil
	case len(words) > 1:
		return o, usageError("unexpected argument %q: expected one duration", words[1])
	case len(words) == 1:
		if d, err = parsePauseLength(words[0]); err != nil {
			return o, err
		}
	}
	if err := control.CheckText(o.question.Reason); err != nil {
		return o, usageError("--reason: %w", err)
	}
	o.question.Do, o.question.ForMS = control.DoPause, d.Milliseconds()
	return o, nil
}

// minutes are written as people write them; conf has PostgreSQL's "min" only.
var minutes = regexp.MustCompile(`^([0-9]+)m$`)

// parsePauseLength wants a unit: 30 could be seconds or minutes.
func parsePauseLength(text string) (time.Duration, error) {
	const expected = "expected a time with its unit, as 90s, 30m or 2h"
	if strings.Trim(text, "0123456789") == "" {
		return 0, usageError("pause of %q: %s", text, expected)
	}
	d, err := conf.ParseDuration(minutes.ReplaceAllString(text, "${1}min"), time.Second, time.Second, watchdog.MaxPause)
	if err != nil {
		return 0, usageError("pause of %q: %w", text, err)
	}
	return d, nil
}

func pause(ctx context.Context, e *env, flags *pflag.FlagSet, args []string) error {
	o, err := parsePause(flags, args)
	if err != nil {
		return err
	}
	if o.question.Do != control.DoStatus && control.CheckText(e.sudoUser) == nil {
		o.question.By = e.sudoUser
	}
	reply, err := e.askAgent(ctx, o.stateDir, o.question)
	if err != nil {
		return err
	}
	s := &reply.Status
	if s.Warning != "" {
		n := notes{e: e}
		n.print([]string{s.Warning})
	}
	if o.json {
		return printJSON(e.stdout, killsObject{s.Kills, s.Pause})
	}
	_, err = fmt.Fprintln(e.stdout, killsText(s, e.now()))
	return err
}

// killsObject is the answer in JSON.
type killsObject struct {
	Kills string `json:"kills"`
	*control.Pause
}

// killsText says whether the sessions of lost clients are terminated.
func killsText(s *control.Status, now time.Time) string {
	text := "kills are enabled"
	if s.Pause != nil {
		text = pauseText(s.Pause, now)
	}
	if s.Kills == "dry run" {
		text += "; watchdog.dry_run is on, so nobody is killed anyway"
	}
	return text
}

// pauseText is one sentence about a pause. What is left is by pgwatchdog's clock,
// which does not step; the end is by the wall clock of now.
func pauseText(p *control.Pause, now time.Time) string {
	left := time.Duration(p.LeftMS) * time.Millisecond
	text := fmt.Sprintf("kills are paused for %s, until %s, by %s", short(left), now.Add(left).Format("2006-01-02 15:04:05 MST"), oneLine(p.By))
	if p.Reason != "" {
		text += ": " + oneLine(p.Reason)
	}
	return text
}
