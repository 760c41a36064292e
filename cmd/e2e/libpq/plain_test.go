// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// run is a program that is run with and without the library.
type run struct {
	name string
	args []string
	env  []string // besides that of all
}

// plainRuns connect in every form to where no conmgr is.
func (w *world) plainRuns() []run {
	addr := w.db1.Addr4
	uri := fmt.Sprintf("postgresql://%v:5432/postgres?target_session_attrs=any", addr)
	service := w.dir + "/service.conf"
	w.must(os.WriteFile(service, fmt.Appendf(nil, "[there]\nhost=%v\nport=5432\nuser=postgres\n", addr), 0o644))
	sql := "SELECT count(*) FROM generate_series(1, 3)"
	psql := func(more ...string) []string { return append([]string{"psql", "-X", "-A", "-t", "-c", sql}, more...) }
	return []run{
		{"psql", psql(), nil},
		{"psql, URI", psql(uri), nil},
		{"psql, keywords", psql(fmt.Sprintf("host=%v,%v port=5432 dbname=postgres", addr, w.db2.Addr4)), nil},
		{"psql, second host", psql(fmt.Sprintf("host=%v,%v port=1,5432 dbname=postgres", addr, addr)), nil},
		{"psql, standby", psql(fmt.Sprintf("host=%v,%v target_session_attrs=standby", addr, w.db2.Addr4)), nil},
		{"psql, service", psql("service=there"), []string{"PGSERVICEFILE=" + service}},
		{"psql, no server", psql("port=1"), nil},
		{"psql, loopback without conmgr", psql("host=localhost port=1"), nil},
		{"psql, no such database", psql("dbname=nonsense"), nil},
		{"psql, nonsense", psql("host=a,b port=1,2,3"), nil},
		{"psql, reset", []string{"psql", "-X", "-c", "SELECT pg_terminate_backend(pg_backend_pid())"}, nil},
		{"psycopg2", []string{"/usr/bin/python3", "-c", "import psycopg2; print(psycopg2.connect('').server_version)"}, nil},
		{"perl", []string{"/usr/bin/perl", "-MDBI", "-e", "print DBI->connect('dbi:Pg:')->{pg_port}"}, nil},
		{"ctypes", []string{"/usr/bin/python3", w.program("ctypes_app.py")}, nil},
		{"PHP", []string{"/usr/bin/php", w.program("php_app.php")}, nil},
		{"pg_isready", []string{"pg_isready"}, nil},
		{"vacuumdb", []string{w.primary.Program("vacuumdb"), "--analyze-only", "--table=pg_class", "--echo"}, nil},
	}
}

// connects counts the connections that the instances have logged.
func (w *world) connects() int {
	w.Helper()
	n := 0
	for _, p := range []*agenttest.Postgres{w.primary, w.standby} {
		text, err := p.Process().Log()
		w.must(err)
		n += strings.Count(text, "connection received: host="+w.client.Addr4.String())
	}
	return n
}

// What names no conmgr is the same with the library: what it prints, how it ends,
// and how many connections the servers see.
func TestWithoutConmgr(t *testing.T) {
	w := newWorld(t, nil)
	needModules(w)
	agenttest.NeedTool(t, "/usr/bin/php")
	for _, p := range []*agenttest.Postgres{w.primary, w.standby} {
		w.must(p.SetConf(map[string]string{"log_connections": "on"}))
		w.must(p.Reload())
	}
	agenttest.Eventually(t, generous, "connections are logged", func() bool {
		before := w.connects()
		_, err := w.try(w.envAt("", w.db1.Addr4.String(), 5432, false), "psql", "-X", "-c", "SELECT 1")
		return err == nil && w.connects() > before
	})
	w.startConmgr() // which is not named by anybody
	for _, r := range w.plainRuns() {
		type seen struct {
			out, end string
			connects int
		}
		var with [2]seen
		for i, preload := range []bool{false, true} {
			before := w.connects()
			env := append(w.envAt("plain", w.db1.Addr4.String(), 5432, preload), r.env...)
			out, err := w.try(env, r.args...)
			with[i] = seen{out, fmt.Sprint(err), w.connects() - before}
		}
		if with[0] != with[1] {
			t.Errorf("%s: without the library\n%+v\nwith it\n%+v", r.name, with[0], with[1])
		}
		if r.name == "PHP" || r.name == "ctypes" {
			if with[1].out != "rows3\n" {
				t.Errorf("%s wrote %q", r.name, with[1].out)
			}
		}
	}
	w.checkBypassed()
}

// PHP and ctypes pass by the library: through conmgr's port they are in proxy mode.
func (w *world) checkBypassed() {
	w.Helper()
	for _, args := range [][]string{
		{"/usr/bin/php", w.program("php_app.php")},
		{"/usr/bin/python3", w.program("ctypes_app.py")},
	} {
		if out := w.output(w.env("bypassed"), args...); out != "rows3\n" {
			w.Errorf("%s through conmgr wrote %q", args[0], out)
		}
	}
}
