// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The role of the script is all that the agent needs of the instance; each of its
// rights is missed when it is taken away, and the script gives it again.
func TestDoctorRole(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	db := lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{Bin: agenttest.MustExtension(t, db.WatchdogRunDir())})
	script := func() string {
		t.Helper()
		out, err := pg.Script(t.Context(), "../../watchdog/role.sql", "role=the agent")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	agenttest.MustExec(t, pg, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
	if out := script(); strings.Contains(out, "reserved_connections") != (mustMajor(t, pg) >= "16") {
		t.Errorf("what the script says: %s", out)
	}
	if err := errors.Join(pg.LetIn("root", "the agent"), pg.Reload()); err != nil {
		t.Fatal(err)
	}
	dsn := strings.Replace(pg.DSN(), "user=postgres", "user='the agent'", 1)
	look := func(exit int) map[string]finding {
		t.Helper()
		return doctorOf(t, db, exit, "--dsn", dsn)
	}
	expect{checkSuperuser, works, "reported by name", ""}.in(t, look(0))
	agenttest.MustExec(t, pg, "CREATE EXTENSION watchdog")
	expect{checkSuperuser, warning, "may not be asked", "GRANT EXECUTE ON FUNCTION pgx_watchdog_terminate"}.in(t, look(0))

	green := func() {
		t.Helper()
		for check, f := range look(0) {
			before16 := check == checkReserved && mustMajor(t, pg) < "16"
			ofInstance := check == checkDatabase || slices.Contains(checksOfInstance, check)
			if f.Result != works && !before16 && ofInstance {
				t.Errorf("%s: %+v", check, f)
			}
		}
	}
	if mustMajor(t, pg) >= "16" {
		if err := pg.SetConf(map[string]string{"reserved_connections": "2"}); err != nil {
			t.Fatal(err)
		}
		if err := pg.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	script()
	green()
	for _, c := range []struct {
		taken string
		exit  int
		want  expect
	}{
		{`REVOKE pg_monitor FROM "the agent"`, 1, expect{checkStats, missing, "", "GRANT pg_read_all_stats"}},
		{`REVOKE pg_monitor FROM "the agent"`, 1, expect{checkDirectory, warning, "", "GRANT pg_monitor"}},
		{`REVOKE pg_signal_backend FROM "the agent"`, 1, expect{checkSignal, missing, "", "GRANT pg_signal_backend"}},
		{`REVOKE SELECT ON pg_file_settings FROM "the agent"`, 0, expect{checkPlaceholders, skipped, "", "GRANT SELECT ON pg_file_settings"}},
		{`REVOKE EXECUTE ON FUNCTION pg_show_all_file_settings() FROM "the agent"`, 0, expect{checkPreload, skipped, "", "GRANT EXECUTE ON FUNCTION"}},
		{`REVOKE EXECUTE ON FUNCTION pgx_watchdog_terminate FROM "the agent"`, 0, expect{checkSuperuser, warning, "", "GRANT EXECUTE"}},
		{`REVOKE CONNECT ON DATABASE postgres FROM "the agent"`, 1, expect{checkDatabase, missing, "permission denied", "pg_monitor"}},
		{`ALTER ROLE "the agent" NOLOGIN`, 1, expect{checkDatabase, missing, "not permitted to log in", "LOGIN"}},
		{`ALTER ROLE "the agent" NOINHERIT`, 1, expect{checkStats, missing, "", "GRANT pg_read_all_stats"}},
		{`REVOKE pg_use_reserved_connections FROM "the agent"`, 0, expect{checkReserved, warning, "", "GRANT pg_use_reserved_connections"}},
	} {
		if strings.Contains(c.taken, "reserved") && mustMajor(t, pg) < "16" {
			continue
		}
		// Later versions remember with each grant whether it is inherited.
		if strings.Contains(c.taken, "NOINHERIT") && mustMajor(t, pg) >= "16" {
			continue
		}
		agenttest.MustExec(t, pg, c.taken)
		c.want.in(t, look(c.exit))
		script()
		green()
	}
	_, stdout, _ := asNobody(t, db, "doctor", "--json", "--dsn", dsn)
	expect{checkDatabase, missing, "Peer authentication failed", "pg_hba.conf"}.in(t, mustFindings(t, stdout))
}

// mustMajor is the version of the server: two digits.
func mustMajor(t *testing.T, pg *agenttest.Postgres) string {
	t.Helper()
	return agenttest.MustQuery(t, pg, "SELECT current_setting('server_version_num')::int / 10000")[0]
}
