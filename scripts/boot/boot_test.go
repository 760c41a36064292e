// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// newer is the version that the machines are upgraded to.
const newer = "999.1"

// world is the lab of README: an application host, a primary and a standby.
type world struct {
	*lab
	t                *testing.T // of the whole life
	client, db1, db2 *machine
	session          *session // of an application, on the primary
	backend          string   // its process id there
	connected        string   // how far the client's journal was then
}

const (
	appArgs = "-h localhost -p 27551 -U app app"
	status  = "runuser -u conmgr -- cm_ctl status -D /var/lib/pgconmgr/conmgr-main -i instance"
	events  = "agentctl events --json --state-dir /var/lib/pgconmgr/pgwatchdog-15-main"
)

// asPostgres is a query by the superuser of a database host.
func asPostgres(database, sql string) string {
	return fmt.Sprintf("runuser -u postgres -- psql -X -A -t -d %s -c %q", database, sql)
}

// TestBoot is the life of a lab, from bare Debian to the removal of the packages.
func TestBoot(t *testing.T) {
	needs(t, "debootstrap", "systemd-nspawn", "dpkg-buildpackage", "dh", "ip", "nsenter")
	w := mustWorld(t)
	for _, step := range []struct {
		name string
		run  func(*world, *testing.T)
	}{
		{"databases are installed", (*world).installDatabases},
		{"the client is installed", (*world).installClient},
		{"units are clean", (*world).unitsAreClean},
		{"rights are as documented", (*world).rightsAreAsDocumented},
		{"the views show it on both", (*world).viewsShowIt},
		{"PostgreSQL restarts alone", (*world).postgresRestartsAlone},
		{"a second cluster is watched", (*world).secondCluster},
		{"an application connects", (*world).applicationConnects},
		{"libpq connects directly", (*world).libpqConnects},
		{"the agent restarts", (*world).agentRestarts},
		{"the agent is killed", (*world).agentIsKilled},
		{"the agent hangs", (*world).agentHangs},
		{"the agent is upgraded", (*world).agentIsUpgraded},
		{"the client is upgraded", (*world).clientIsUpgraded},
		{"conmgr restarts", (*world).conmgrRestarts},
		{"the client dies", (*world).clientDies},
		{"a database host dies", (*world).databaseDies},
		{"a database host reboots", (*world).databaseReboots},
		{"the client reboots", (*world).clientReboots},
		{"removal keeps, purge removes", (*world).purge},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(w, t) }) {
			t.Fatalf("%s: what follows builds on it", step.name)
		}
	}
}

func mustWorld(t *testing.T) *world {
	t.Helper()
	debs, next := mustPackages(t), mustOtherPackages(t, mustTop(t), newer)
	w := &world{t: t, lab: mustLab(t)}
	binds := []string{debs + ":/debs", next + ":/newer", filepath.Join(mustTop(t), "vagrant") + ":/vagrant"}
	w.db1 = w.mustMachine(t, "db1", "192.168.56.11", binds...)
	w.db2 = w.mustMachine(t, "db2", "192.168.56.12", binds...)
	w.client = w.mustMachine(t, "client", "192.168.56.10", binds...)
	for _, m := range w.machines {
		m.mustBoot(t)
	}
	return w
}

func (w *world) installDatabases(t *testing.T) {
	w.db1.must(t, "/vagrant/db.sh primary")
	w.db2.must(t, "/vagrant/db.sh standby")
	for _, m := range []*machine{w.db1, w.db2} {
		if got := m.must(t, "systemctl is-active pgwatchdog@15-main"); got != "active" {
			t.Errorf("pgwatchdog on %s: %s", m.name, got)
		}
	}
}

func (w *world) installClient(t *testing.T) {
	out := w.client.must(t, "/vagrant/client.sh")
	if !strings.Contains(out, "A client that dies") {
		t.Errorf("client.sh does not say what to try:\n%s", out)
	}
	w.monitored(t)
}

// monitored waits until conmgr has heartbeats with both instances.
func (w *world) monitored(t *testing.T) {
	t.Helper()
	agenttest.Eventually(t, patience, "both instances are monitored", func() bool {
		out, err := w.client.run(t.Context(), "psql -X -A -t -h localhost -p 27546 conmgr -c 'SHOW INSTANCES'")
		return err == nil && strings.Count(out, "|monitored|") == 2
	})
}

func (w *world) unitsAreClean(t *testing.T) {
	for m, unit := range map[*machine]string{w.db1: "pgwatchdog@15-main.service", w.client: "conmgr@main.service"} {
		if out := m.must(t, "systemd-analyze verify "+unit+" 2>&1"); out != "" {
			t.Errorf("systemd-analyze verify on %s:\n%s", m.name, out)
		}
		if out, err := m.run(t.Context(), "systemd-analyze security --threshold=20 --no-pager "+unit); err != nil {
			t.Errorf("%s is more exposed than 2.0: %v", unit, err)
		} else {
			lines := strings.Split(strings.TrimSpace(out), "\n")
			t.Log(lines[len(lines)-1])
		}
	}
	if out := w.client.must(t, "systemd-analyze --user verify /usr/lib/systemd/user/conmgr@.service 2>&1 || true"); strings.Contains(out, "conmgr@") {
		t.Errorf("user unit:\n%s", out)
	}
}

// asAgent runs a program with the agent's own rights, as agentctl doctor --help tells.
const asAgent = "setpriv --reuid pgwatchdog --regid pgwatchdog --init-groups " +
	"--inh-caps +net_admin,+bpf,+perfmon --ambient-caps +net_admin,+bpf,+perfmon "

// rightsAreAsDocumented looks at the processes that systemd has made, and asks doctor
// with the agent's own rights.
func (w *world) rightsAreAsDocumented(t *testing.T) {
	// CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39
	want := fmt.Sprintf("%016x", 1<<12|1<<38|1<<39)
	for _, set := range []string{"CapEff", "CapBnd", "CapAmb"} {
		if got := w.db1.must(t, "sed -n 's/^"+set+":\\s*//p' /proc/$(systemctl show -P MainPID pgwatchdog@15-main)/status"); got != want {
			t.Errorf("%s of pgwatchdog is %s, want %s", set, got, want)
		}
	}
	if got := w.client.must(t, "sed -n 's/^CapBnd:\\s*//p' /proc/$(systemctl show -P MainPID conmgr@main)/status"); got != strings.Repeat("0", 16) {
		t.Errorf("conmgr may have capabilities %s", got)
	}
	if got := w.db1.must(t, "stat -c '%U %a' /var/lib/pgconmgr/pgwatchdog-15-main /run/pgconmgr | tr '\\n' ' '"); got != "pgwatchdog 700 pgwatchdog 755" {
		t.Errorf("directories: %s", got)
	}
	// It fails where the kernel has no fentry.
	out, _ := w.db1.run(t.Context(), asAgent+"agentctl doctor --json --config /etc/pgconmgr/pgwatchdog-15-main.conf")
	for _, check := range []string{
		"sock destroy", "descriptors", "pgwatchdog.conf", "database", "unix socket", "pg_read_all_stats", "pg_signal_backend",
		"superuser sessions", "agent", "kills", "agent instance", "agent database", "agent sockets", "agent descriptors",
	} {
		if !strings.Contains(out, `"check":"`+check+`","result":"works"`) {
			t.Errorf("doctor: %s does not work", check)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if out := w.db1.must(t, "agentctl sessions --json"); !strings.Contains(out, `"192.168.56.10"`) {
		t.Errorf("agentctl sessions: %s", out)
	}
	if log := w.db1.must(t, "journalctl --no-pager -o cat -u pgwatchdog@15-main"); strings.Contains(log, "sockets of dead clients cannot be destroyed") {
		t.Errorf("pgwatchdog cannot destroy sockets:\n%s", log)
	}
}

func (w *world) viewsShowIt(t *testing.T) {
	const sql = "SELECT conmgr_addr, heartbeat_interval, heartbeat_timeout FROM pgx_stat_watchdog"
	for _, m := range []*machine{w.db1, w.db2} {
		agenttest.Eventually(t, patience, "the view on "+m.name, func() bool {
			return m.sees(asPostgres("postgres", sql), "192.168.56.10|1|3")
		})
	}
}

// The agent does not go down with PostgreSQL, and comes with it.
func (w *world) postgresRestartsAlone(t *testing.T) {
	before := w.mainPID(t, w.db1, "pgwatchdog@15-main")
	w.db1.must(t, "systemctl restart postgresql@15-main")
	if after := w.mainPID(t, w.db1, "pgwatchdog@15-main"); after != before {
		t.Errorf("pgwatchdog was %s before PostgreSQL's restart, and is %s", before, after)
	}
	if order := w.db1.must(t, "systemctl show -P After pgwatchdog@15-main"); !strings.Contains(order, "postgresql@15-main.service") {
		t.Errorf("pgwatchdog starts after %s", order)
	}
	w.monitored(t)
}

// secondCluster runs another agent beside another cluster of the same host: they share
// users and directories, and one that stops takes nothing from the other.
func (w *world) secondCluster(t *testing.T) {
	w.db1.must(t, `pg_createcluster 15 second
pg_conftool 15 second set watchdog.port 27547
systemctl start postgresql@15-second
pgwatchdog-setup 15-second
systemctl enable --now pgwatchdog@15-second`)
	const sql = "SELECT count(*) FROM pgx_stat_watchdog"
	second := strings.Replace(asPostgres("postgres", sql), "-d postgres", "--cluster 15/second -d postgres", 1)
	w.db1.must(t, strings.Replace(second, sql, "CREATE EXTENSION watchdog", 1))
	both := func() bool { return w.db1.sees(asPostgres("postgres", sql), "1") && w.db1.sees(second+" 2>&1", "0") }
	agenttest.Eventually(t, patience, "each view shows its own agent's clients", both)

	w.db1.must(t, "systemctl stop pgwatchdog@15-second")
	if !w.db1.sees(asPostgres("postgres", sql), "1") {
		t.Error("the end of one agent was that of the other's view")
	}
	w.db1.must(t, "systemctl start pgwatchdog@15-second")
	agenttest.Eventually(t, patience, "both views again", both)
}

func (w *world) mainPID(t *testing.T, m *machine, unit string) string {
	t.Helper()
	pid := m.must(t, "systemctl show -P MainPID "+unit)
	if pid == "0" {
		t.Fatalf("%s does not run on %s", unit, m.name)
	}
	return pid
}
