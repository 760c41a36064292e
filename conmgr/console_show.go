// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// show makes the rows of a console table.
func (c *console) show(name string) ([]row, error) {
	s := c.server
	switch name {
	case "status":
		return c.showStatus(), nil
	case "instances":
		return showInstances(s.opts.Source.View(), s.opts.Clock()), nil
	case "applications":
		return c.showApplications(), nil
	case "config":
		return showConfig(s.opts.Config()), nil
	case "events":
		return showEvents(s.events.all()), nil
	case "stats":
		return s.showStats(), nil
	case "version":
		return []row{{s.opts.Status().Version}}, nil
	case "help":
		return helpRows, nil
	}
	return nil, failure("42601", "conmgr's console has no table %q", name)
}

var helpRows = []row{
	{"SHOW STATUS", "conmgr itself"},
	{"SHOW INSTANCES", "what conmgr knows of each instance"},
	{"SHOW APPLICATIONS", "who is connected; rows of other users only for conmgr's user and root"},
	{"SHOW CONFIG", "every parameter, its value, where that comes from, its default"},
	{"SHOW EVENTS", "the latest faults and changes"},
	{"SHOW STATS", "counters since the start"},
	{"SHOW VERSION", "the version"},
	{"SHOW HELP", "this list"},
	{"TARGET any|read-write|read-only|primary|standby|prefer-standby", "the instances that have the attribute, best first; binds this session to the first"},
	{"TARGET attribute INSTANCE number", "only that instance, if it has the attribute; binds this session to it"},
	{"SHUTDOWN SMART|FAST|IMMEDIATE|RESTART", "ends conmgr; on conmgr.sock only"},
}

func (c *console) showStatus() []row {
	st := c.server.opts.Status()
	return []row{{st.State, int64(st.PID), rfc3339(st.Started), st.Version,
		int64(c.server.apps.Count()), int64(len(c.server.opts.Source.View().Instances)), st.Hints}}
}

func showInstances(v *View, now mono.Instant) []row {
	rows := make([]row, 0, len(v.Instances))
	for i := range v.Instances {
		n := &v.Instances[i]
		rows = append(rows, row{
			int64(n.Number), n.Host, n.address(), int64(n.Port), n.Monitoring.String(),
			n.Heartbeat.String(), attributeOf(n), statusOf(n), readOnly(&n.Instance),
			positive(int64(n.Instance.Timeline)), lsn(n.Instance.WAL), systemID(n.Instance.SystemID),
			milliseconds(n.RTT), heardMS(n.Heard, now), int64(n.Lost), int64(n.Received),
			n.Reason.String(), n.Why, n.Kills(),
		})
	}
	return rows
}

// showApplications lists the applications that this session may see.
func (c *console) showApplications() []row {
	c.server.identify()
	list := c.server.apps.list()
	me := c.owner(list)
	view := c.server.opts.Source.View()
	rows := make([]row, 0, len(list))
	for i := range list {
		if c.sees(me, &list[i]) {
			rows = append(rows, applicationRow(&list[i], view))
		}
	}
	return rows
}

// owner returns who this session belongs to.
func (c *console) owner(list []app) owner {
	for i := range list {
		if list[i].id == c.app.id {
			return list[i].owner
		}
	}
	return owner{}
}

func applicationRow(m *app, v *View) row {
	r := row{int64(m.id), string(m.kind), "", nil, nil, nil, "", nil, "", rfc3339(m.connected), m.state}
	if m.peer.IsValid() {
		r[2], r[3] = m.peer.Addr().Unmap().String(), int64(m.peer.Port())
	}
	if m.owner.known {
		r[4], r[5] = positive(int64(m.owner.pid)), int64(m.owner.uid)
	}
	if m.bound {
		r[6] = m.target.String()
	}
	if m.bound && m.index < len(v.Instances) {
		n := &v.Instances[m.index]
		r[7], r[8] = int64(n.Number), n.Host
		if n.Host == "" {
			r[8] = n.address()
		}
	}
	return r
}

func showConfig(list []ConfigRow) []row {
	rows := make([]row, 0, len(list))
	for _, p := range list {
		rows = append(rows, row{p.Name, p.Value, p.File, p.Default, p.Context})
	}
	return rows
}

func showEvents(list []Event) []row {
	rows := make([]row, 0, len(list))
	for _, e := range list {
		rows = append(rows, row{rfc3339(e.At), e.Kind, instanceNumber(e.Instance), e.Reason,
			positive(e.Silence.Milliseconds()), int64(e.Applications), e.Detail})
	}
	return rows
}

// rfc3339 prints a time in UTC with milliseconds; the zero time is empty.
func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// positive is NULL for 0 and less.
func positive(n int64) any {
	if n <= 0 {
		return nil
	}
	return n
}

func instanceNumber(n *int) any {
	if n == nil {
		return nil
	}
	return int64(*n)
}

// readOnly is empty while the instance's state is unknown.
func readOnly(i *wire.Instance) string {
	switch {
	case i.Status == wire.StatusUnknown:
		return ""
	case i.ReadOnly:
		return "on"
	}
	return "off"
}

// lsn prints a WAL position as pg_lsn does; empty while unknown.
func lsn(p uint64) string {
	if p == 0 {
		return ""
	}
	return fmt.Sprintf("%X/%X", p>>32, uint32(p))
}

func systemID(id uint64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id, 10)
}

// milliseconds is NULL while unknown.
func milliseconds(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return float64(d.Microseconds()) / 1000
}

// heardMS is how long ago the last valid frame came, NULL for never.
func heardMS(heard, now mono.Instant) any {
	if heard.IsZero() {
		return nil
	}
	return max(0, now.Sub(heard).Milliseconds())
}
