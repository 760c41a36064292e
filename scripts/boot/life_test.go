// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// applicationConnects opens the session that nothing may cost from here on.
func (w *world) applicationConnects(t *testing.T) {
	if w.session != nil {
		w.session.close()
	}
	w.session = mustSession(w.t, w.client, appArgs)
	w.backend = w.session.ask(t, "SELECT pg_backend_pid();")
	w.connected = w.client.must(t, "journalctl --no-pager -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")
	if got := w.session.ask(t, "SELECT pg_is_in_recovery();"); got != "f" {
		t.Fatalf("port 27551 leads to a standby (%s)", got)
	}
}

const (
	libpqArgs = "'host=localhost port=27546 user=app dbname=app target_session_attrs=read-write'"
	preloaded = "LD_PRELOAD=libconmgr.so"
	ofConmgr  = "PGCONMGR_USER=conmgr"
)

// libpqConnects lets psql go through the library: its own socket leads to the primary.
func (w *world) libpqConnects(t *testing.T) {
	direct := mustSession(t, w.client, libpqArgs, preloaded, ofConmgr)
	port := direct.ask(t, "SELECT inet_client_port();")
	if out := w.client.must(t, "ss -Htnp 'sport = :"+port+"'"); !strings.Contains(out, "192.168.56.11:5432") || !strings.Contains(out, `"psql"`) {
		t.Errorf("psql is not connected directly: %q", out)
	}
}

// unharmed makes sure that the application's session goes on, and that nobody was
// faulted, terminated or refused since it began.
func (w *world) unharmed(t *testing.T) {
	t.Helper()
	w.monitored(t)
	if got := w.session.ask(t, "SELECT pg_backend_pid();"); got != w.backend {
		t.Errorf("the session is with backend %s, it was %s", got, w.backend)
	}
	if out := w.db1.must(t, events); strings.Contains(out, `"kind":"warrant"`) {
		t.Errorf("sessions were terminated:\n%s", out)
	}
	log := w.client.must(t, "journalctl --no-pager -o cat -u conmgr@main --after-cursor='"+w.connected+"'")
	for _, trouble := range []string{"instance faulted", "connection refused", "applications told of a fault"} {
		if strings.Contains(log, trouble) {
			t.Errorf("conmgr says %q:\n%s", trouble, log)
		}
	}
}

// listening are the identities of the agent's listening sockets in the kernel.
func (w *world) listening(t *testing.T) string {
	t.Helper()
	inodes := w.db1.must(t, "ss -Hltne 'sport = :27545' 2>/dev/null | grep -o 'ino:[0-9]*' | sort")
	if !strings.HasPrefix(inodes, "ino:") {
		t.Fatalf("pgwatchdog listens on nothing: %q", inodes)
	}
	return inodes
}

// another waits until a unit has another main process, and is active.
func (w *world) another(t *testing.T, unit, before string) {
	t.Helper()
	agenttest.Eventually(t, patience, unit+" runs again", func() bool {
		pid, err := w.db1.run(t.Context(), "systemctl is-active --quiet "+unit+"; systemctl show -P MainPID "+unit)
		return err == nil && strings.TrimSpace(pid) != before
	})
}

const agent = "pgwatchdog@15-main"

func (w *world) agentRestarts(t *testing.T) {
	sockets := w.listening(t)
	for range 3 {
		w.db1.must(t, "systemctl restart "+agent)
		w.unharmed(t)
		if now := w.listening(t); now != sockets {
			t.Errorf("listens on other sockets than before: %s, %s", now, sockets)
		}
	}
}

func (w *world) agentIsKilled(t *testing.T) {
	sockets, pid := w.listening(t), w.mainPID(t, w.db1, agent)
	w.db1.must(t, "kill -9 "+pid)
	w.another(t, agent, pid)
	w.unharmed(t)
	if now := w.listening(t); now != sockets {
		t.Errorf("listens on other sockets than before: %s, %s", now, sockets)
	}
}

// A hung agent gives no sign of life: systemd ends it and starts another one.
func (w *world) agentHangs(t *testing.T) {
	pid := w.mainPID(t, w.db1, agent)
	w.db1.must(t, "kill -STOP "+pid)
	w.another(t, agent, pid)
	if log := w.db1.must(t, "journalctl --no-pager -o cat -u "+agent); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("systemd did not notice by itself:\n%s", log)
	}
	w.unharmed(t)
}

const configuration = "sha256sum /etc/pgconmgr/*"

func (w *world) agentIsUpgraded(t *testing.T) {
	w.db1.must(t, "echo 'watchdog.accept_timeout = 3s' >>/etc/pgconmgr/pgwatchdog-15-main.conf")
	files, pid, sockets := w.db1.must(t, configuration), w.mainPID(t, w.db1, agent), w.listening(t)
	w.db1.must(t, "apt-get install -y /newer/pgconmgr-server_*.deb")
	w.another(t, agent, pid)
	if got := w.db1.must(t, "$(readlink /proc/$(systemctl show -P MainPID "+agent+")/exe) --version"); got != "pgwatchdog (pgconmgr) "+newer {
		t.Errorf("runs %s after the upgrade, want %s", got, newer)
	}
	if now := w.db1.must(t, configuration); now != files {
		t.Errorf("configuration was %s, is %s", files, now)
	}
	if now := w.listening(t); now != sockets {
		t.Errorf("listens on other sockets than before: %s, %s", now, sockets)
	}
	w.unharmed(t)
}

// Connections lead through conmgr, so it goes on with its version, and the
// administrator is told.
func (w *world) clientIsUpgraded(t *testing.T) {
	files, pid := w.client.must(t, configuration), w.mainPID(t, w.client, "conmgr@main")
	out := w.client.must(t, "apt-get install -y /newer/pgconmgr-client_*.deb")
	if !strings.Contains(out, "systemctl restart conmgr@main") {
		t.Errorf("nobody is told to restart conmgr:\n%s", out)
	}
	if now := w.mainPID(t, w.client, "conmgr@main"); now != pid {
		t.Errorf("conmgr was restarted: %s, %s", pid, now)
	}
	if now := w.client.must(t, configuration); now != files {
		t.Errorf("configuration was %s, is %s", files, now)
	}
	w.unharmed(t)
}

// A restart by systemctl is told as one: applications lose their connections, and the
// database hosts terminate nothing.
func (w *world) conmgrRestarts(t *testing.T) {
	w.client.must(t, "systemctl restart conmgr@main")
	if log := w.client.must(t, "journalctl --no-pager -o cat -u conmgr@main"); !strings.Contains(log, "mode=restart") {
		t.Errorf("conmgr was not told that it is a restart:\n%s", log)
	}
	w.monitored(t)
	w.applicationConnects(t)
	w.unharmed(t)
}

// clientDies cuts the client off without a word. Its lock is free within the timeout
// and its backends are gone.
func (w *world) clientDies(t *testing.T) {
	w.db1.must(t, asPostgres("app", "CREATE TABLE held ()"))
	w.db1.must(t, asPostgres("app", "ALTER TABLE held OWNER TO app"))
	w.session.send(t, "BEGIN; LOCK TABLE held;")
	w.session.ask(t, "SELECT pg_backend_pid();")
	w.setPlugged(t, w.client, false)
	cut := time.Now()
	w.db1.must(t, "runuser -u postgres -- psql -X -q -d app -c \"SET lock_timeout = '60s'\" -c BEGIN -c 'LOCK TABLE held'")
	t.Logf("the lock was free %v after the cut, with a timeout of 3 s", time.Since(cut).Round(10*time.Millisecond))
	agenttest.Eventually(t, patience, "no backend of the client is left", func() bool {
		return w.db1.sees(asPostgres("postgres", "SELECT count(*) FROM pg_stat_activity WHERE client_addr = '192.168.56.10'"), "0")
	})
	agenttest.Eventually(t, patience, "the event", func() bool {
		out, err := w.db1.run(t.Context(), events)
		return err == nil && strings.Contains(out, `"addr":"192.168.56.10"`) && strings.Contains(out, `"outcome":"done"`)
	})
	w.setPlugged(t, w.client, true)
	w.monitored(t)
	w.applicationConnects(t)
}

// databaseDies cuts the primary off without a word. Whoever waits for an answer, in
// whatever way, gets an error within the timeout.
func (w *world) databaseDies(t *testing.T) {
	direct := mustSession(t, w.client, libpqArgs, preloaded, ofConmgr)
	direct.ask(t, "SELECT 1;")
	for _, s := range []*session{w.session, direct} {
		s.send(t, "SELECT pg_sleep(3600);")
	}
	agenttest.Eventually(t, patience, "both sleep", func() bool {
		return w.db1.sees(asPostgres("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), "2")
	})
	w.setPlugged(t, w.db1, false)
	cut := time.Now()
	for way, s := range map[string]*session{"pass-through": w.session, "libpq": direct} {
		if got := s.line(t); got != "SSL SYSCALL error: EOF detected" {
			t.Errorf("%s: %q", way, got)
		}
		t.Logf("%s: the error came at most %v after the cut, with a timeout of 3 s", way, time.Since(cut).Round(10*time.Millisecond))
	}
	w.setPlugged(t, w.db1, true)
	w.monitored(t)
}

// reboot restarts a machine from within.
func reboot(t *testing.T, m *machine) {
	t.Helper()
	_, _ = m.run(t.Context(), "systemctl reboot") // the answer may not come any more
	m.off(t)
	m.mustBoot(t)
}

func (w *world) databaseReboots(t *testing.T) {
	reboot(t, w.db1)
	w.monitored(t)
	w.mainPID(t, w.db1, agent)
	w.viewsShowIt(t)
}

func (w *world) clientReboots(t *testing.T) {
	w.session.close()
	reboot(t, w.client)
	w.monitored(t)
	again := mustSession(t, w.client, appArgs)
	if got := again.ask(t, "SELECT pg_is_in_recovery();"); got != "f" {
		t.Errorf("port 27551 leads to a standby (%s)", got)
	}
}

// leftovers lists what the packages, their units and their users have left. Pages that
// somebody has looked at are in man's cache, which man cleans by itself.
const leftovers = `find / /run -xdev \( -iname '*pgconmgr*' -o -iname '*pgwatchdog*' -o -iname '*conmgr*' -o -name cm_ctl -o -name agentctl -o -name 'watchdog*.sql' \) \
	-not -path '/debs*' -not -path '/newer*' -not -path '/vagrant*' -not -path '/proc/*' -not -path '/var/cache/man/*'
getent passwd conmgr pgwatchdog || true
getent group conmgr pgwatchdog || true
systemctl list-units --all --no-legend 'pgwatchdog@*' 'conmgr@*'
systemctl list-unit-files --no-legend 'pgwatchdog@*' 'conmgr@*' || true`

func (w *world) purge(t *testing.T) {
	w.client.must(t, "apt-get remove -y pgconmgr-client pgconmgr-libpq")
	w.client.must(t, "test -s /etc/pgconmgr/conmgr-main.conf && test -d /var/lib/pgconmgr/conmgr-main")
	w.client.must(t, "apt-get purge -y pgconmgr-client pgconmgr-libpq")
	w.db1.must(t, "apt-get purge -y pgconmgr-server")
	for _, m := range []*machine{w.client, w.db1} {
		if out := m.must(t, leftovers); out != "" {
			t.Errorf("left on %s:\n%s", m.name, out)
		}
	}
	if !w.db1.sees(asPostgres("app", "SELECT 'well'"), "well") {
		t.Error("PostgreSQL does not run any more")
	}
}
