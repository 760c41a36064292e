// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// testTerminate: the helper ends the superuser's session that was seen, and
// no other one.
func (x *extended) testTerminate() {
	t, admin := x.t, x.mustAdmin()
	admin.mustExec("CREATE ROLE chief LOGIN SUPERUSER; REVOKE pg_signal_backend FROM agent;" +
		"CREATE EXTENSION watchdog; GRANT EXECUTE ON FUNCTION pgx_watchdog_terminate TO agent, boss")
	agent, boss := x.mustClient("127.0.0.1", "agent"), x.mustClient(otherHost, "boss")
	bystander := x.mustClient(lostHost, "chief")
	call := func(caller *scratchSession, pid uint32, change string) string {
		t.Helper()
		at := strings.Split(change, "|")
		results, err := caller.Exec(t.Context(), fmt.Sprintf(
			"SELECT pgx_watchdog_terminate(pid%s, backend_start%s, client_addr%s) FROM pg_stat_activity WHERE pid = %d", at[0], at[1], at[2], pid)).ReadAll()
		if err != nil {
			return err.Error()
		}
		return string(results[0].Rows[0][0])
	}
	const exactly = "||"
	refuses := func(what, got, why string) {
		t.Helper()
		if !strings.Contains(got, why) || !strings.Contains(got, "42501") {
			t.Errorf("%s: %s; want %s", what, got, why)
		}
	}

	app := x.mustClient(lostHost, "app")
	refuses("an ordinary session", call(agent, app.PID(), exactly), "sessions of superusers only")
	refuses("the caller's own", call(agent, agent.PID(), exactly), "never the caller's own")
	refuses("a superuser's own", call(boss, boss.PID(), exactly), "never the caller's own")
	sister := x.mustClient(lostHost, "boss")
	refuses("a sister of the caller's", call(boss, sister.PID(), exactly), "never the caller's own")
	if got := call(agent, admin.PID(), exactly); got != "" {
		t.Errorf("a session of the Unix socket: %q", got) // its address is NULL: the function is strict
	}

	victim := x.mustClient(lostHost, "chief")
	for what, change := range map[string]string{
		"another pid": "+100000||", "another start": "| + interval '1 us'|", "another address": "||+1",
	} {
		if got := call(agent, victim.PID(), change); got != "f" {
			t.Errorf("%s: %q", what, got)
		}
	}
	if !victim.alive() || !app.alive() || !sister.alive() || !boss.alive() || !agent.alive() {
		t.Fatal("somebody was ended")
	}
	busy := victim.background("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
	scratchEventually(t, "busy", func() bool { return strings.HasPrefix(admin.scratchState(victim.PID()), "active") })
	if got := call(agent, victim.PID(), exactly); got != "t" {
		t.Errorf("the session that was seen: %q", got)
	}
	if err := <-busy; !scratchEnded(err) {
		t.Errorf("the session that was seen: %v", err)
	}

	// A transaction sees the sessions as they are, not as they were at its begin.
	agent.mustExec("BEGIN")
	gone := x.mustClient(lostHost, "chief")
	row := agent.mustValue(fmt.Sprintf("SELECT format('%%s, %%L, %%L', pid, backend_start, client_addr) FROM pg_stat_activity WHERE pid = %d", gone.PID()))
	mustDo(t, gone.Close(t.Context()))
	scratchEventually(t, "gone", func() bool { return admin.scratchState(gone.PID()) == "" })
	if got := agent.mustValue("SELECT pgx_watchdog_terminate(" + row + ")"); got != "f" {
		t.Errorf("a session that is gone: %q", got)
	}
	agent.mustExec("ROLLBACK")

	// A replication connection of a superuser.
	conn, err := x.dial(t.Context(), x.dsn(lostHost, "chief")+" replication=true", lostHost)
	mustDo(t, err)
	x.session(conn)
	if got := call(agent, conn.PID(), exactly); got != "t" {
		t.Errorf("a walsender: %q", got)
	}
	if !bystander.alive() {
		t.Error("another session of the same user and address was ended")
	}
	refuses("a role without the grant", call(x.mustClient("127.0.0.1", "app"), bystander.PID(), exactly), "permission denied for function")
}

// testHelper: with the extension and the grant the terminator ends a lost
// host's sessions of superusers as well; without one of them it says which.
func (x *extended) testHelper() {
	t := x.t
	b := newBenchOn(x.scratchCluster, allRights, func(c *TerminatorConfig) {
		c.Connect = func(ctx context.Context) (*pgconn.PgConn, error) { return x.local(ctx, "agent") }
	})
	// A function of that name is not enough: anybody could make it.
	b.admin.mustExec("CREATE FUNCTION pgx_watchdog_terminate(int, timestamptz, inet) RETURNS bool LANGUAGE plpgsql AS " +
		"$$BEGIN RAISE EXCEPTION 'a trap'; END$$")
	strange := b.mustClient(otherHost, "boss")
	round := func(want Outcome, ended int, why string) Result {
		t.Helper()
		first, second := b.mustClient(lostHost, "boss"), b.mustClient(lostHost, "boss")
		busy := first.background("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
		scratchEventually(t, "busy", func() bool { return strings.HasPrefix(b.admin.scratchState(first.PID()), "active") })
		b.mustClient(lostHost, "app")
		b.term.Execute(b.warrant(lostHost, CaseTimeout))
		r := b.result()
		b.wantOutcome(r, want, 3, ended)
		for _, s := range r.Survivors {
			if s.User != "boss" || !strings.Contains(s.Why, why) {
				t.Errorf("survivor %+v: want %q", s, why)
			}
		}
		b.admin.mustExec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_addr = '" + lostHost + "'")
		if err := <-busy; !scratchEnded(err) {
			t.Errorf("busy: %v", err)
		}
		mustDo(t, second.PgConn.Conn().Close())
		scratchEventually(t, "nobody left", func() bool { return b.count("client_addr = '"+lostHost+"'") == 0 })
		return r
	}
	round(OutcomeSurvivors, 1, "CREATE EXTENSION watchdog")
	b.admin.mustExec(`CREATE SCHEMA "Odd one"; CREATE EXTENSION watchdog SCHEMA "Odd one"`)
	round(OutcomeSurvivors, 1, "GRANT EXECUTE ON FUNCTION pgx_watchdog_terminate")
	b.admin.mustExec(`GRANT EXECUTE ON FUNCTION "Odd one".pgx_watchdog_terminate TO agent`)
	round(OutcomeSurvivors, 1, "permission denied for schema")
	b.admin.mustExec(`GRANT USAGE ON SCHEMA "Odd one" TO agent`)
	if r := round(OutcomeDone, 3, ""); r.Err != nil || r.Took > 5*time.Second {
		t.Errorf("%v after %v", r.Err, r.Took)
	}
	if !strange.alive() {
		t.Error("a session of the same superuser from another host was ended")
	}
	b.admin.mustExec(`DROP FUNCTION pgx_watchdog_terminate; DROP SCHEMA "Odd one" CASCADE`)
}
