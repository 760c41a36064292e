// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
)

// The real program with and without a right, and in other namespaces.
func TestDoctorRights(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	destroy := func(h *agenttest.Host, caps []uintptr, args ...string) finding {
		t.Helper()
		_, stdout, stderr := withRights(t, h, caps, append([]string{"doctor", "--json"}, args...)...)
		f, ok := mustFindings(t, stdout)["sock destroy"]
		if !ok || strings.Contains(stderr, "note:") {
			t.Fatalf("stdout %s, stderr %s", stdout, stderr)
		}
		return f
	}
	without := destroy(db, nil)
	if without.Result != missing || without.Advice == nil || !strings.Contains(*without.Advice, "AmbientCapabilities=CAP_NET_ADMIN") {
		t.Errorf("without rights: %+v", without)
	}
	if f := destroy(db, []uintptr{unix.CAP_NET_ADMIN}); f.Result != works || f.Advice != nil {
		t.Errorf("with CAP_NET_ADMIN: %+v", f)
	}
	mustTool(t, client, "ip", "link", "set", "lo", "down")
	both := []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN}
	if f := destroy(client, both); f.Result != missing || f.Advice == nil || !strings.Contains(*f.Advice, "lo up") {
		t.Errorf("without loopback: %+v", f)
	}
	if f := destroy(client, both, "--netns", db.Namespace()); f.Result != works {
		t.Errorf("in the namespace of db: %+v", f)
	}
	s := newSession(0, "")
	s.kernel = healthyKernel()
	s.kernel.links = ladder{linkhint.Counter: fail(linkhint.Counter, unix.ENOENT, "mount sysfs")}.open
	s.mustIn(t, client, 0, "doctor", "--json", "--netns", db.Namespace())
	expect{"carrier counter", skipped, "no such file", "ip netns exec"}.in(t, mustFindings(t, s.out.String()))
	exit, _, stderr := withRights(t, client, nil, "doctor", "--netns", db.Namespace())
	if exit != 1 || !strings.Contains(stderr, "CAP_SYS_ADMIN is missing") {
		t.Errorf("a namespace that nobody may enter: exit %d, %s", exit, stderr)
	}
}

// Limits of a process that is started with them.
func TestDoctorLimits(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	path, err := lab.Binary(t.Context(), "agentctl")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) map[string]finding {
		t.Helper()
		cmd := lab.Host("db").Command(t.Context(), args[0], args[1:]...)
		cmd.SysProcAttr = new(syscall.SysProcAttr)
		out, err := cmd.Output()
		if err != nil && !strings.Contains(err.Error(), "exit status 1") {
			t.Fatal(err)
		}
		return mustFindings(t, string(out))
	}
	enough := run("sh", "-c", "ulimit -n 164 && exec "+path+" doctor --json")
	expect{"descriptors", works, "164 may be open here, 164 are needed", ""}.in(t, enough)
	expect{"inotify", works, "", ""}.in(t, enough)
	expect{"descriptors", missing, "163 may be open here, 164 are needed", "LimitNOFILE=164"}.in(t,
		run("sh", "-c", "ulimit -n 163 && exec "+path+" doctor --json"))
	if out, err := lab.Host("db").Command(t.Context(), "unshare", "--user", "--map-root-user", "true").CombinedOutput(); err != nil {
		agenttest.Skip(t, "user namespaces: "+string(out))
	}
	// The limit on inotify is one of a user namespace, too.
	expect{"inotify", missing, "too many open files", "fs.inotify.max_user_instances"}.in(t,
		run("unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 >/proc/sys/user/max_inotify_instances && exec "+path+" doctor --json"))
}

// doctorOf runs the doctor on a host with a kernel that can do everything, so
// that the exit code is the instance's.
func doctorOf(t *testing.T, h *agenttest.Host, exit int, args ...string) map[string]finding {
	t.Helper()
	s := newSession(0, "")
	s.kernel = healthyKernel()
	s.mustIn(t, h, exit, append([]string{"doctor", "--json"}, args...)...)
	return mustFindings(t, s.out.String())
}

func TestDoctorInstance(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	db := lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{Conf: map[string]string{"max_connections": "30"}})
	for _, sql := range []string{
		"CREATE ROLE blind LOGIN", "CREATE ROLE seer LOGIN IN ROLE pg_read_all_stats", "CREATE ROLE ender LOGIN IN ROLE pg_signal_backend",
		"CREATE ROLE wd LOGIN IN ROLE pg_monitor, pg_signal_backend",
		"CREATE ROLE reader LOGIN IN ROLE pg_monitor, pg_signal_backend",
		"GRANT SELECT ON pg_file_settings TO reader", "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO reader",
	} {
		agenttest.MustExec(t, pg, sql)
	}
	as := func(role string) string { return strings.Replace(pg.DSN(), "user=postgres", "user="+role, 1) }
	check := func(dsn string, exit int, want ...expect) {
		t.Helper()
		all := doctorOf(t, db, exit, "--dsn", dsn)
		for _, w := range want {
			w.in(t, all)
		}
	}
	watched := fmt.Sprintf("postmaster %d can be watched", pg.Process().Pid())
	check(as("reader"), 0,
		expect{checkDatabase, works, ", role reader", ""}, expect{checkSocket, works, watched, ""},
		expect{checkStats, works, "", ""}, expect{checkSignal, works, "", ""}, expect{checkSuperuser, works, "not a superuser", ""},
		expect{checkDirectory, works, pg.DataDir, ""}, expect{checkPlaceholders, works, "", ""}, expect{checkPreload, works, "", ""},
		expect{"descriptors", works, "94 are needed for 30 heartbeat connections", ""})
	check(as("wd"), 0,
		expect{checkStats, works, "", ""}, expect{checkSignal, works, "", ""},
		expect{checkPlaceholders, skipped, "", "GRANT SELECT ON pg_file_settings TO wd; GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO wd"},
		expect{checkPreload, skipped, "", "GRANT SELECT ON pg_file_settings TO wd"})
	check(as("blind"), 1,
		expect{checkStats, missing, "", "GRANT pg_read_all_stats TO blind"}, expect{checkSignal, missing, "", "GRANT pg_signal_backend TO blind"},
		expect{checkDirectory, warning, "", "GRANT pg_monitor TO blind"})
	check(as("seer"), 1, expect{checkStats, works, "", ""}, expect{checkSignal, missing, "", "GRANT pg_signal_backend TO seer"})
	check(as("ender"), 1, expect{checkStats, missing, "", "GRANT pg_read_all_stats TO ender"}, expect{checkSignal, works, "", ""})
	check(pg.DSN(), 0, expect{checkSuperuser, warning, "superuser", "ALTER ROLE postgres NOSUPERUSER"}, expect{checkReserved, works, "", ""})
	check(fmt.Sprintf("host=127.0.0.1 port=%d user=reader", pg.Port), 0, expect{checkSocket, warning, "TCP", "host=/var/run/postgresql"})
	check(as("stranger"), 1,
		expect{checkDatabase, missing, "stranger", "LOGIN"}, expect{checkStats, skipped, "needs the database", ""}, expect{checkPreload, skipped, "needs the database", ""})
	check("host=/nowhere user=reader", 1, expect{checkDatabase, missing, "no such file", "--dsn"})
	if all := doctorOf(t, db, 0, "--config", mustConf(t, "dsn = '"+as("wd")+"'\n")); all[checkDatabase].Result != works {
		t.Errorf("dsn of the file: %+v", all[checkDatabase])
	}

	// What only the files know yet, and what a role without rights cannot see.
	mustSet := func(name, value string) {
		t.Helper()
		if err := pg.SetConf(map[string]string{name: value}); err != nil {
			t.Fatal(err)
		}
	}
	mustSet("watchdog.on_timout", "wait")
	mustSet("watchdgo.port", "27545")
	mustSet("shared_preload_libraries", "pg_stat_statements, watchdog")
	agenttest.MustExec(t, pg, "SELECT pg_reload_conf()")
	check(as("reader"), 1,
		expect{checkPlaceholders, missing, "unknown parameter watchdog.on_timout, perhaps watchdog.on_timeout is meant", "pg_reload_conf"},
		expect{checkPlaceholders, missing, "watchdgo.port is nobody's setting, perhaps watchdog.port is meant", "pg_reload_conf"},
		expect{checkPlaceholders, missing, filepath.Join(pg.DataDir, "postgresql.conf:"), "pg_reload_conf"},
		expect{checkPreload, missing, "the instance will not start", "take watchdog out of shared_preload_libraries"})
	check(as("wd"), 0, expect{checkPlaceholders, skipped, "", "GRANT"}, expect{checkPreload, skipped, "", "GRANT"})
}

// Files as the user of the agent sees them.
func TestDoctorAsUser(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	db := lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{})
	if err := pg.CreateRole(t.Context(), "wd", "pg_monitor", "pg_signal_backend"); err != nil {
		t.Fatal(err)
	}
	dir, err := db.Mkdir("nobody", "keys")
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte(keyLineA), 0o600); err != nil {
		t.Fatal(err)
	}
	look := func() map[string]finding {
		t.Helper()
		_, stdout, stderr := asNobody(t, db, "doctor", "--json", "--key-file", keys, "--dsn", strings.Replace(pg.DSN(), "user=postgres", "user=wd", 1))
		if stdout == "" {
			t.Fatal(stderr)
		}
		return mustFindings(t, stdout)
	}
	others := look()
	expect{"key file", missing, "permission denied", "chown pgwatchdog " + keys}.in(t, others)
	expect{checkDirectory, warning, "permission denied", "AmbientCapabilities=CAP_DAC_READ_SEARCH"}.in(t, others)
	if err := os.Chown(keys, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	expect{"key file", works, "1 key for the user nobody: alpha", ""}.in(t, look())
	// Root asks for the user that the file belongs to.
	expect{"key file", works, "1 key for the user nobody: alpha", ""}.in(t, doctorOf(t, db, 0, "--key-file", keys))
}

// The real program fits real terminals.
func TestDoctorTerminal(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	for _, columns := range []uint16{80, 200} {
		_, shown := onTerminal(t, lab.Host("db"), columns, "", "doctor")
		if !strings.Contains(shown, "sock destroy         works    destroyed a connection of its own on loopback\n") || !strings.Contains(shown, "\n30 checks: ") {
			t.Errorf("%d columns:\n%s", columns, shown)
		}
		table, _, _ := strings.Cut(shown, "agentctl: ")
		checkWidth(t, fmt.Sprint(columns), table, int(columns))
	}
}
