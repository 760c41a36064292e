// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// The checks that the running agent answers, in the order of the help.
const (
	checkAgent            = "agent"
	checkKills            = "kills"
	checkAgentInstance    = "agent instance"
	checkAgentDatabase    = "agent database"
	checkAgentSockets     = "agent sockets"
	checkAgentLinks       = "agent link source"
	checkAgentDescriptors = "agent descriptors"
	checkFuse             = "fuse"
	checkStalls           = "stalls"
)

var checksOfAgent = []string{
	checkKills, checkAgentInstance, checkAgentDatabase, checkAgentSockets, checkAgentLinks, checkAgentDescriptors,
	checkFuse, checkStalls,
}

// stateDir is where the agent runs: as it is told itself.
func (d *doctor) stateDir(e *env) (string, error) {
	return e.stateDir(cmp.Or(d.options.stateDir, d.own("state_dir")))
}

// checkRunning asks the agent that runs here what only it knows.
func (d *doctor) checkRunning(ctx context.Context, e *env) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	dir, err := d.stateDir(e)
	if err != nil {
		d.noAgent(skipped, err.Error(), "")
		return
	}
	reply, err := e.ask(ctx, dir, control.Question{Do: control.DoStatus})
	if err != nil {
		d.noAgent(d.noAnswer(dir, err))
		return
	}
	s := &reply.Status
	armed := s.Sessions.Up + s.Sessions.Late + s.Sessions.Suspect
	d.add(checkAgent, works, fmt.Sprintf("pgwatchdog %s, pid %d, since %s: %s armed", s.Version, s.PID,
		s.Started.In(e.now().Location()).Format(time.DateTime), plural(armed, "session")), "")
	d.checkKills(s, e.now())
	d.checkAgentInstance(s)
	d.checkAgentDatabase(s)
	d.checkAgentSockets(s)
	d.checkAgentLinks(s)
	d.checkAgentDescriptors(s)
	d.checkFuse(s)
	d.checkStalls(s)
}

// noAgent is what is found without an agent that answers.
func (d *doctor) noAgent(r result, detail, advice string) {
	d.add(checkAgent, r, detail, advice)
	for _, check := range checksOfAgent {
		d.add(check, skipped, "needs the running agent", "")
	}
}

// noAnswer says why nobody answers. It may not have been started yet, which is no fault.
func (d *doctor) noAnswer(dir string, err error) (r result, detail, advice string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return skipped, "no pgwatchdog runs with the state directory " + dir + " (--state-dir)", ""
	case errors.Is(err, fs.ErrPermission):
		return skipped, err.Error() + ": needs root or the user of pgwatchdog", ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return missing, "pgwatchdog has ended without a goodbye: nobody serves its control socket in " + dir, "start it; its log or the journal says why it ended"
	case errors.Is(err, context.DeadlineExceeded):
		return missing, fmt.Sprintf("pgwatchdog does not answer within %s", askLimit), "look at its log and whether it is stopped; restart it: conmgrs keep their applications meanwhile"
	default:
		return missing, err.Error(), "agentctl and pgwatchdog of one version, and a look at the log of pgwatchdog"
	}
}

func (d *doctor) checkKills(s *control.Status, now time.Time) {
	switch {
	case s.Pause != nil:
		d.add(checkKills, warning, pauseText(s.Pause, now)+"; "+plural(s.Clients.Suspended, "dead client")+" kept alive", "agentctl pause --resume, when the work is done; it ends by itself")
	case s.Kills == "dry run":
		d.add(checkKills, warning, "watchdog.dry_run is on: nobody is killed", "watchdog.dry_run = off and a reload, when you have seen enough")
	default:
		d.add(checkKills, works, "enabled", "")
	}
}

func (d *doctor) checkAgentInstance(s *control.Status) {
	i := s.Instance
	detail := strings.TrimSpace(i.Status + " " + i.Attribute)
	switch i.Status {
	case "up":
		d.add(checkAgentInstance, works, detail, "")
	case "unknown":
		d.add(checkAgentInstance, missing, "the agent does not know the state of the instance: conmgrs call it unmonitored", "see the check database, and the log of pgwatchdog")
	default:
		d.add(checkAgentInstance, warning, "conmgrs are told that the instance is "+detail, "start the instance, or look at its log")
	}
}

func (d *doctor) checkAgentDatabase(s *control.Status) {
	db := s.Database
	switch {
	case len(db.Missing) > 0:
		d.add(checkAgentDatabase, missing, "rights are missing: sessions of dead clients would not end", strings.Join(db.Missing, "; "))
	case !db.Terminator:
		d.add(checkAgentDatabase, missing, "the connection that ends sessions is not there: the backends of dead clients stay until it is", "see the check database, and let max_connections be larger by 2")
	case !db.Monitor:
		d.add(checkAgentDatabase, warning, "the last check of the instance was not answered", "see the check database, and the log of pgwatchdog")
	default:
		d.add(checkAgentDatabase, works, "both connections are there, role "+db.Role, "")
	}
}

func (d *doctor) checkAgentSockets(s *control.Status) {
	switch {
	case !s.Sockets.Proven:
		d.add(checkAgentSockets, skipped, "the agent has not tried yet", "")
	case s.Sockets.Error != "":
		d.add(checkAgentSockets, missing, s.Sockets.Error+"; sessions of dead clients are terminated all the same", "see the check sock destroy, run with the rights of the agent")
	default:
		d.add(checkAgentSockets, works, "the agent can destroy sockets", "")
	}
}

func (d *doctor) checkAgentLinks(s *control.Status) {
	var reasons, hints []string
	for _, m := range s.Links.Missing {
		reasons = append(reasons, m.Source+": "+m.Error)
		if m.Hint != "" {
			hints = append(hints, m.Hint)
		}
	}
	detail := "links are watched by " + s.Links.Source
	if len(reasons) > 0 {
		detail += "; " + strings.Join(reasons, "; ")
	}
	switch source := s.Links.Source; {
	case !s.Links.Enabled:
		d.add(checkAgentLinks, warning, "watchdog.link_hints is off: a lost link is noticed at heartbeat_timeout", "watchdog.link_hints = on and a reload, unless this is wanted")
	case source == "none":
		d.add(checkAgentLinks, missing, "links are not watched: a lost one is noticed at heartbeat_timeout", "see the check rtnetlink, and the log of pgwatchdog")
	case source == "rtnetlink":
		d.add(checkAgentLinks, warning, detail+"; a lost carrier is seen up to a second late", strings.Join(hints, "; "))
	default:
		d.add(checkAgentLinks, works, detail, "")
	}
}

func (d *doctor) checkAgentDescriptors(s *control.Status) {
	f := s.Descriptors
	detail := fmt.Sprintf("%d open, %d may be, %d are needed for %d heartbeat connections", f.Open, f.Limit, f.Need, s.Sessions.Limit)
	if f.Limit < f.Need {
		d.add(checkAgentDescriptors, missing, detail, fmt.Sprintf("LimitNOFILE=%d in the unit of pgwatchdog (ulimit -n), or a smaller watchdog.max_heartbeat_connections", f.Need))
		return
	}
	d.add(checkAgentDescriptors, works, detail, "")
}

func (d *doctor) checkFuse(s *control.Status) {
	switch f := s.Fuse; {
	case f.Held > 0:
		d.add(checkFuse, warning, fmt.Sprintf("holds the verdicts of %s for one more timeout: at least half of all fell silent at once", plural(f.Held, "session")),
			"look at the network of this host first: it is more likely the cause than all the others")
	case f.Blown > 0:
		d.add(checkFuse, works, fmt.Sprintf("holds nothing now; has held verdicts %s, the last time %s", times(f.Blown), f.Last.UTC().Format(time.RFC3339)), "")
	default:
		d.add(checkFuse, works, "has never held a verdict", "")
	}
}

func (d *doctor) checkStalls(s *control.Status) {
	if s.Stalls == 0 {
		d.add(checkStalls, works, "the agent never stood still", "")
		return
	}
	d.add(checkStalls, warning, "the agent stood still "+times(s.Stalls)+" since its start, and judged nobody for that silence",
		"more processor time for it (Nice=, CPUWeight=), or a virtual machine whose host is less busy")
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
