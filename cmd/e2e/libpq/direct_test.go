// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

const (
	user, password = "app", "long-secret"
)

// secure makes both instances speak TLS and ask for a password.
func secure(rootcert *string) func(*world) {
	return func(w *world) {
		w.Helper()
		var err error
		*rootcert, err = w.primary.EnableTLS()
		w.must(err)
		agenttest.MustExec(w, w.primary, fmt.Sprintf(`SET password_encryption = 'scram-sha-256';
			CREATE ROLE %s LOGIN IN ROLE pg_monitor PASSWORD '%s'`, user, password))
		w.hba = []string{"host replication all 10.99.0.0/24 trust", "hostssl all all 10.99.0.0/24 scram-sha-256"}
		w.must(w.primary.SetHBA(w.hba))
		w.must(w.primary.Reload())
	}
}

// What TLS, the password file and psql call the server is the instance's own name,
// with channel binding, for each target.
func TestNamesOfTheInstance(t *testing.T) {
	var rootcert string
	w := newWorld(t, secure(&rootcert))
	w.must(os.WriteFile(w.dir+"/pgpass", fmt.Appendf(nil, "localhost:*:*:*:wrong\ndb1:5432:*:%s:%s\n", user, password), 0o644))
	// libpq wants it to itself.
	w.output(w.env(""), "sh", "-c", "umask 077 && cp "+w.dir+"/pgpass "+w.dir+"/passfile")
	w.startConmgr()
	env := append(w.env("names"), "PGUSER="+user, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+rootcert,
		"PGCHANNELBINDING=require", "PGPASSFILE="+w.dir+"/passfile")
	out := w.output(env, "psql", "-X", "-A", "-t", "-c", `\echo :HOST :PORT`, "-c",
		"SELECT host(inet_server_addr()), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
	if want := fmt.Sprintf("db1 5432\n%v|t\n", w.db1.Addr4); out != want {
		t.Errorf("psql wrote %q, want %q", out, want)
	}

	env = append(env, "PGPASSWORD="+password)
	for target, where := range map[string]*agenttest.Host{
		"primary": w.db1, "read-write": w.db1, "standby": w.db2, "read-only": w.db2,
		"prefer-standby": w.db2, "prefer-read": w.db2,
	} {
		out := w.output(append(env, "PGTARGETSESSIONATTRS="+target), "psql", "-X", "-A", "-t", "-c", "SELECT host(inet_server_addr())")
		if out != where.Addr4.String()+"\n" {
			t.Errorf("%s is at %q, want %v", target, out, where.Addr4)
		}
	}
	w.checkConsole(env)
	w.checkNobody(env)
}

// checkConsole sees that the console is reached with the library, too.
func (w *world) checkConsole(env []string) {
	w.Helper()
	out := w.output(append(env, "PGDATABASE=conmgr", "PGSSLMODE=prefer", "PGCHANNELBINDING=prefer", "PGTARGETSESSIONATTRS=any"),
		"psql", "-X", "-A", "-t", "-c", "SHOW INSTANCES")
	if !strings.Contains(out, "monitored") || strings.Count(out, "\n") != 2 {
		w.Errorf("SHOW INSTANCES with the library: %q", out)
	}
}

// checkNobody asks for what no instance is: the error says so.
func (w *world) checkNobody(env []string) {
	w.Helper()
	w.must(w.standby.Stop(w.Context(), agenttest.Fast))
	var out string
	agenttest.Eventually(w, generous, "there is no standby", func() bool {
		var err error
		out, err = w.try(append(env, "PGTARGETSESSIONATTRS=standby", "PGSSLMODE=prefer", "PGCHANNELBINDING=prefer"), "psql", "-X", "-c", "SELECT 1")
		return err != nil
	})
	w.Logf("psql is told: %s", out)
	if !strings.Contains(out, "27546") {
		w.Errorf("the error does not come from conmgr: %s", out)
	}
}

// cm_ctl restart is none of an application's business, and the next fault still is.
func TestConmgrRestart(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.cm.Ctl(t.Context(), "start")
	w.must(err)
	w.awaitRoles()
	var list []*running
	for _, k := range kinds() {
		if k.name == "pollloop" || k.name == "blocking" || k.name == "psql" {
			list = append(list, w.start(k, blocked), w.start(k, idle))
		}
	}
	w.awaitInMode(list)
	w.expectApplications(len(list))
	_, err = w.cm.Ctl(t.Context(), "restart")
	w.must(err)
	w.awaitRoles()
	w.expectApplications(len(list))
	w.awaitInMode(list) // and none has ended
	agenttest.MustFault(t, w.db1.Cut)
	w.expectBroken(list, "silent-server after a restart", func() mono.Instant { return w.lastHeartbeat(w.db1) }, timeout)
}

// Without a conmgr, and without an instance, ECPG's connect fails as it does
// without a server.
func TestEmbeddedConnectFails(t *testing.T) {
	w := newWorld(t, nil)
	w.startConmgr()
	r := w.start(kind{
		name: "embedded", sessions: 1, use: line,
		args: func(w *world, mode string) []string { return []string{w.program("embedded"), mode, "again"} },
	}, idle)
	w.awaitInMode([]*running{r})
	agenttest.MustFault(t, w.cm.Process.Kill)
	w.awaitGone([]*running{r})
	r.write(w, "\n")
	r.awaitEnd(w)
	if text := r.wrote(); !strings.Contains(text, "broken: SQLSTATE 57P0") || !strings.Contains(text, "connect: SQLSTATE 08001") {
		t.Errorf("the program wrote\n%s\nexpected 57P01 or 57P02, then 08001", text)
	}
}
