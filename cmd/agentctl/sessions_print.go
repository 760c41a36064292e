// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// sessionColumn is a column of the table of heartbeat sessions.
type sessionColumn struct {
	column
	cell func(*control.Session, time.Time) string
}

var sessionColumns = []sessionColumn{
	{column{heading: "client", min: 12, tail: true}, clientText},
	{column{heading: "state"}, func(s *control.Session, _ time.Time) string { return s.State }},
	{column{heading: "client is", rank: 1}, relationText},
	{column{heading: "beats", right: true, rank: 4}, beatsText},
	{column{heading: "rtt", right: true, rank: 3}, func(s *control.Session, _ time.Time) string {
		return shortUnless(time.Duration(s.RTTMS * float64(time.Millisecond)))
	}},
	{column{heading: "heard", right: true, rank: 2}, func(s *control.Session, _ time.Time) string { return ago(s.HeardMS) }},
	{column{heading: "loss", right: true, rank: 5}, lossText},
	{column{heading: "over", rank: 7}, func(s *control.Session, _ time.Time) string { return s.Transport }},
	{column{heading: "key", rank: 8}, func(s *control.Session, _ time.Time) string { return s.Key }},
	{column{heading: "armed", right: true, rank: 6}, func(s *control.Session, now time.Time) string {
		if s.Armed == nil {
			return ""
		}
		return short(max(0, now.Sub(*s.Armed)))
	}},
	{column{heading: "why", rank: 9}, whyText},
	{column{heading: "session", right: true, rank: 11}, func(s *control.Session, _ time.Time) string { return number(s.Session) }},
	{column{heading: "gen", right: true, rank: 10}, func(s *control.Session, _ time.Time) string { return number(s.Generation) }},
	{column{heading: "conmgr", rank: 12, min: 8}, func(s *control.Session, _ time.Time) string { return s.Conmgr }},
}

func clientText(s *control.Session, _ time.Time) string {
	if s.Port == 0 {
		return s.Addr.String()
	}
	return netip.AddrPortFrom(s.Addr, s.Port).String()
}

// relationText is what the agent will do, and when.
func relationText(s *control.Session, _ time.Time) string {
	switch {
	case s.Protected:
		return "protected"
	case s.LeftMS != nil:
		return s.Relation + " " + ago(s.LeftMS)
	}
	return s.Relation
}

func beatsText(s *control.Session, _ time.Time) string {
	timeout := short(time.Duration(s.TimeoutMS) * time.Millisecond)
	if s.IntervalMS == 0 {
		return timeout
	}
	return short(time.Duration(s.IntervalMS)*time.Millisecond) + " x " + timeout
}

// lossText is in percent of what should have come.
func lossText(s *control.Session, _ time.Time) string {
	if s.Received+s.Lost == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", 100*float64(s.Lost)/float64(s.Received+s.Lost))
}

func whyText(s *control.Session, _ time.Time) string {
	if s.Held && s.Reason != wire.ReasonFuse.String() {
		return s.Reason + ", held by the fuse"
	}
	return s.Reason
}

// ago prints milliseconds that may be unknown.
func ago(ms *int64) string {
	if ms == nil {
		return ""
	}
	return short(time.Duration(*ms) * time.Millisecond)
}

// number prints a number that means nothing when it is 0.
func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// sessionsPicture makes an answer ready to be shown.
func sessionsPicture(now time.Time, reply *control.Reply, o *sessionsOptions) *picture {
	var list []control.Session
	for i := range reply.Sessions {
		if o.wants(&reply.Sessions[i]) {
			list = append(list, reply.Sessions[i])
		}
	}
	slices.SortFunc(list, compareSessions)
	return &picture{
		at: now, notes: statusNotes(&reply.Status, now),
		table: func(limit int) textTable { return sessionsTable(list, now, limit) },
		json: func(w io.Writer) error {
			for i := range list {
				if err := printJSON(w, &list[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func sessionsTable(list []control.Session, now time.Time, limit int) textTable {
	columns := make([]column, len(sessionColumns))
	for i, c := range sessionColumns {
		columns[i] = c.column
	}
	rows := make([][]string, len(list))
	for i := range list {
		for _, c := range sessionColumns {
			rows[i] = append(rows[i], dash(c.cell(&list[i], now)))
		}
	}
	return layTable(columns, rows, "session", limit)
}

// statusNotes are what somebody who looks at sessions has to know of the agent.
func statusNotes(s *control.Status, now time.Time) (texts []string) {
	if s.Pause != nil {
		texts = append(texts, pauseText(s.Pause, now))
	}
	if s.Kills == "dry run" {
		texts = append(texts, "watchdog.dry_run is on: nobody is killed")
	}
	if s.Fuse.Held > 0 {
		texts = append(texts, fmt.Sprintf("the fuse holds the verdicts of %s", plural(s.Fuse.Held, "session")))
	}
	if s.Instance.Status == "unknown" {
		texts = append(texts, "the state of the instance is not known: conmgrs call it unmonitored")
	}
	return texts
}
