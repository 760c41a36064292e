// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// socketColumn is a column of the table of sockets. With a database, what it
// says is more important on a narrow terminal than most of TCP's details.
type socketColumn struct {
	column
	joined bool // only with a database
	cell   func(*row) string
}

var socketColumns = []socketColumn{
	{column{heading: "state"}, false, func(r *row) string { return stateName(r.State) }},
	{column{heading: "local", min: 8, tail: true, yields: 7}, false, func(r *row) string { return r.endpoint(r.Local) }},
	{column{heading: "peer", min: 12, tail: true}, false, func(r *row) string { return r.endpoint(r.Remote) }},
	{column{heading: "recvq", right: true, rank: 8}, false, func(r *row) string { return fmt.Sprint(r.RecvQueue) }},
	{column{heading: "sendq", right: true, rank: 5}, false, func(r *row) string { return fmt.Sprint(r.SendQueue) }},
	{column{heading: "rexmit", right: true, rank: 6}, false, func(r *row) string {
		return r.tcp(func(i *sockdiag.Info) string { return fmt.Sprintf("%d/%d", i.Retransmits, i.TotalRetrans) })
	}},
	{column{heading: "ack", right: true, rank: 4}, false, func(r *row) string {
		return r.tcp(func(i *sockdiag.Info) string { return short(i.LastAckReceived) })
	}},
	{column{heading: "data", right: true, rank: 9}, false, func(r *row) string {
		return r.tcp(func(i *sockdiag.Info) string { return short(i.LastDataReceived) })
	}},
	{column{heading: "rtt", right: true, rank: 10}, false, func(r *row) string {
		return r.tcp(func(i *sockdiag.Info) string { return shortUnless(i.RTT) })
	}},
	{column{heading: "rto", right: true, rank: 12}, false, func(r *row) string {
		return r.tcp(func(i *sockdiag.Info) string { return shortUnless(i.RTO) })
	}},
	{column{heading: "timer", rank: 11}, false, timerText},
	{column{heading: "user", rank: 13}, false, func(r *row) string { return r.user }},
	{column{heading: "process", rank: 7}, false, ownersText},
	{column{heading: "backend", right: true, rank: 1}, true, func(r *row) string {
		return r.session(func(b *backend) string { return fmt.Sprint(b.pid) })
	}},
	{column{heading: "role", rank: 3}, true, func(r *row) string { return r.session(func(b *backend) string { return b.user }) }},
	{column{heading: "database", rank: 5}, true, func(r *row) string {
		return r.session(func(b *backend) string { return b.database })
	}},
	{column{heading: "activity", rank: 2, min: 10}, true, func(r *row) string { return r.session(func(b *backend) string { return b.state }) }},
	{column{heading: "query", right: true, rank: 3}, true, func(r *row) string {
		return r.session(func(b *backend) string {
			if b.queryStart.IsZero() {
				return ""
			}
			return short(b.queryAgo)
		})
	}},
	{column{heading: "type", rank: 12}, true, func(r *row) string { return r.session(func(b *backend) string { return b.kind }) }},
}

// stateName is the state as people know it from ss(8) and netstat(8).
func stateName(s sockdiag.State) string {
	if s == sockdiag.Established {
		return "ESTAB"
	}
	return s.String()
}

// tcp is what the kernel knows of a connection; it knows nothing of a socket
// that has none.
func (r *row) tcp(text func(*sockdiag.Info) string) string {
	if r.Info == nil || r.State == sockdiag.Listen {
		return ""
	}
	return text(r.Info)
}

func (r *row) session(text func(*backend) string) string {
	if r.backend == nil {
		return ""
	}
	return text(r.backend)
}

// endpoint is an address and port, with the interface of a link-local address.
func (r *row) endpoint(a netip.AddrPort) string {
	if r.iface != "" && a.Addr().Is6() && a.Addr().IsLinkLocalUnicast() {
		a = netip.AddrPortFrom(a.Addr().WithZone(r.iface), a.Port())
	}
	if a.Port() == 0 {
		return "*"
	}
	return a.String()
}

func timerText(r *row) string {
	if r.Timer.Kind == sockdiag.TimerNone {
		return ""
	}
	text := r.Timer.Kind.String() + " " + short(r.Timer.Expires)
	if r.Timer.Retries > 0 {
		text += fmt.Sprintf(" #%d", r.Timer.Retries)
	}
	return text
}

func ownersText(r *row) string {
	if len(r.owners) == 0 {
		return ""
	}
	text := fmt.Sprintf("%s/%d", r.owners[0].Name, r.owners[0].PID)
	if more := len(r.owners) - 1; more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

// picture makes a look ready to be shown; joined adds the columns of the database.
// Trouble with the database is a note.
func (o *look) picture(joined bool) *picture {
	return &picture{
		at: o.at, notes: o.allNotes(),
		table: func(limit int) textTable { return tableOf(o, joined, limit) },
		json:  func(w io.Writer) error { return printSockets(w, o) },
	}
}

// tableOf lays a look out on lines of so many characters, 0 for no limit.
func tableOf(seen *look, joined bool, limit int) textTable {
	var columns []column
	var cells []func(*row) string
	for _, c := range socketColumns {
		if joined || !c.joined {
			columns, cells = append(columns, c.column), append(cells, c.cell)
		}
	}
	rows := make([][]string, len(seen.rows))
	for i := range seen.rows {
		for _, cell := range cells {
			rows[i] = append(rows[i], dash(cell(&seen.rows[i])))
		}
	}
	return layTable(columns, rows, "socket", limit)
}
