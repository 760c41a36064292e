// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Rows conmgr-death and silent-server for each program, whatever it is doing.
func TestErrors(t *testing.T) {
	for _, tool := range []string{"/usr/bin/python3", "/usr/bin/perl"} {
		agenttest.NeedTool(t, tool)
	}
	w := newWorld(t, nil)
	needModules(w)
	w.startConmgr()

	list, control := w.startAll(), w.startControl()
	killed := agenttest.MustFault(w, w.cm.Process.Kill)
	w.expectBroken(list, "conmgr-death", func() mono.Instant { return killed.Before }, 0)
	w.expectOpen(control)

	w.startConmgr()
	list = w.startAll()
	agenttest.MustFault(w, w.db1.Cut)
	w.expectBroken(list, "silent-server", func() mono.Instant { return w.lastHeartbeat(w.db1) }, timeout)
	w.expectOpen(control)
}

// startControl runs a program without the library, straight to the primary: what
// breaks the others must not be what breaks it.
func (w *world) startControl() *running {
	w.Helper()
	r := w.startIn(w.envAt("control-"+blocked, w.db1.Addr4.String(), 5432, false), kind{
		name: "control", sessions: 1,
		args: func(w *world, mode string) []string { return []string{w.program("blocking"), mode} },
	}, blocked)
	w.awaitInMode([]*running{r})
	return r
}

func (w *world) expectOpen(r *running) {
	w.Helper()
	select {
	case <-r.broken:
		w.Errorf("a program without the library ended, too:\n%s", r.wrote())
	default:
	}
}

// needModules skips where a driver of another language is missing.
func needModules(w *world) {
	w.Helper()
	for what, args := range map[string][]string{
		"psycopg2 for /usr/bin/python3": {"/usr/bin/python3", "-c", "import psycopg2"},
		"DBD::Pg for /usr/bin/perl":     {"/usr/bin/perl", "-MDBD::Pg", "-e", "1"},
	} {
		if out, err := w.try(w.env(""), args...); err != nil {
			agenttest.Skip(w, what+" (make install-deps): "+out)
		}
	}
}

// startAll runs every program in every mode and returns when all are in theirs and
// conmgr has a session for each of their connections.
func (w *world) startAll() []*running {
	w.Helper()
	var list []*running
	sessions := 0
	for _, k := range kinds() {
		for _, mode := range modes {
			list = append(list, w.start(k, mode))
			sessions += k.sessions
		}
	}
	sessions += len(modes) // the parents of the forkers
	w.awaitInMode(list)
	w.expectApplications(sessions)
	return list
}

// expectApplications checks that every application is a console session for its
// primary: nobody went through the proxy.
func (w *world) expectApplications(n int) {
	w.Helper()
	kinds, table := map[string]int{}, ""
	defer func() {
		if kinds["console primary"] != n {
			w.Logf("expected %d sessions of console programs for their primary, found %v:\n%s", n, kinds, table)
		}
	}()
	agenttest.Eventually(w, generous, "a session of conmgr for each connection", func() bool {
		clear(kinds)
		table = w.output(w.envAt("", "localhost", portConsole, false),
			"psql", "-X", "-A", "-t", "-d", "conmgr", "-c", "SHOW APPLICATIONS")
		for row := range strings.Lines(table) {
			column := strings.Split(strings.TrimSpace(row), "|")
			kinds[column[1]+" "+column[6]]++
		}
		return kinds["console primary"] == n
	})
	for what, n := range kinds {
		if strings.HasPrefix(what, "proxy") || strings.HasPrefix(what, "passthrough") {
			w.Errorf("%d applications are %s: expected none", n, what)
		}
	}
}

// expectBroken waits for the error of each program and notes how long after the due
// moment it came. What looks at its connection only when used is made to use it
// when the others have told.
func (w *world) expectBroken(list []*running, row string, from func() mono.Instant, due time.Duration) {
	w.Helper()
	for _, r := range list {
		if !r.noticesItself() {
			continue
		}
		at := w.brokenAt(r)
		after := at.Sub(from()) - due
		w.Logf("%s %s: %.1f ms after the verdict was due", row, r, after.Seconds()*1000)
		if after < 0 {
			w.Errorf("%s %s: an error %v before the verdict was due", row, r, -after)
		}
	}
	if due == 0 { // the server is there: a statement that comes before the fault works
		w.awaitGone(list)
	}
	for _, r := range list {
		if !r.noticesItself() {
			r.used = clock.Now()
			r.write(w, r.use[r.mode])
		}
	}
	for _, r := range list {
		if !r.noticesItself() {
			w.Logf("%s %s: %.1f ms after the use", row, r, w.brokenAt(r).Sub(r.used).Seconds()*1000)
		}
	}
	for _, r := range list {
		r.awaitEnd(w)
		w.checkText(r)
	}
}

// awaitGone waits until the primary has no session of the programs any more; a
// backend that is busy would not look at its socket.
func (w *world) awaitGone(list []*running) {
	w.Helper()
	agenttest.Eventually(w, generous, "no session of the programs", func() bool {
		for _, name := range agenttest.MustQuery(w, w.primary, "SELECT application_name FROM pg_stat_activity") {
			for _, r := range list {
				if name == r.id() && r.mode != blocked {
					return false
				}
			}
		}
		return true
	})
}

func (w *world) brokenAt(r *running) mono.Instant {
	w.Helper()
	select {
	case at, ok := <-r.broken:
		if ok {
			return at
		}
		w.Fatalf("%s ended without an error:\n%s", r.id(), r.wrote())
	case <-time.After(generous):
		w.Fatalf("%s: no error within %v:\n%s", r.id(), generous, r.wrote())
	}
	panic("unreachable")
}

// sqlstates are what a program may see; NULL for libpq, which is told by nobody.
var sqlstates = map[string][]string{
	"ECPG":     {"57P01", "57P02"},
	"psycopg2": {"None", "57P01"},
	"DBD::Pg":  {"08006", "08000", "S1000", "57P01"},
}

// checkText looks at the SQLSTATE in a program's line.
func (w *world) checkText(r *running) {
	w.Helper()
	_, state, ok := strings.Cut(r.wrote(), "SQLSTATE ")
	if !ok {
		if r.name != "psql" && r.name != "pgbench" {
			w.Errorf("%s wrote no SQLSTATE:\n%s", r.id(), r.wrote())
		}
		return
	}
	state, _, _ = strings.Cut(state, ":")
	may := sqlstates[r.name]
	if may == nil {
		may = []string{"NULL", "57P01"}
	}
	for _, s := range may {
		if s == state {
			return
		}
	}
	w.Errorf("%s: SQLSTATE %s, expected one of %v", r.id(), state, may)
}
