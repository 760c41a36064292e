// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func TestMonitorCrashAndRestart(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"))
	before := w.untilUp()

	c.signal(syscall.SIGKILL)
	down, took := w.until("down", hasStatus(wire.StatusDown))
	t.Logf("kill -9 of the postmaster seen after %v", took)
	if took > 100*time.Millisecond {
		t.Errorf("death seen after %v, expected milliseconds", took)
	}
	if down.Attribute != wire.AttributePrimary || down.Generation <= before.Generation {
		t.Errorf("down as %+v", down)
	}

	// Backends of the dead postmaster hold the shared memory for a moment.
	eventually(t, "started again", 20*time.Second, func() bool {
		return c.command("pg_ctl", "-D", c.data, "-l", c.root+"/log", "-w", "start").Run() == nil
	})
	after, took := w.until("up again", hasStatus(wire.StatusUp))
	t.Logf("start seen %v after pg_ctl returned", took)
	if after.StartUS <= before.StartUS || after.Generation <= down.Generation || after.SystemID != before.SystemID {
		t.Errorf("restarted from %+v to %+v", before, after)
	}

	// A quick restart must not pass unseen.
	c.run("pg_ctl", "-D", c.data, "-l", c.root+"/log", "-m", "fast", "-w", "restart")
	again, _ := w.until("up once more", func(i wire.Instance) bool {
		return i.Status == wire.StatusUp && i.StartUS > after.StartUS
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.states, func(i wire.Instance) bool {
		return i.Status == wire.StatusDown && i.Generation > after.Generation && i.Generation < again.Generation
	}) {
		t.Error("the restart was seen without a state down between")
	}
	if !slices.IsSortedFunc(w.states, func(a, b wire.Instance) int { return int(a.Generation) - int(b.Generation) }) {
		t.Error("generations fell")
	}
}

func TestMonitorHungPostmaster(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("check_accept_interval", "200ms"), set("accept_timeout", "100ms"), set("check_attr_interval", "50ms"))
	before := w.untilUp()
	c.signal(syscall.SIGSTOP)
	hung, took := w.until("unresponsive", hasStatus(wire.StatusUnresponsive))
	t.Logf("unresponsive %v after SIGSTOP", took)
	if hung.Attribute != wire.AttributePrimary || hung.StartUS != before.StartUS {
		t.Errorf("hung as %+v", hung)
	}
	c.signal(syscall.SIGCONT)
	after, took := w.until("up", hasStatus(wire.StatusUp))
	t.Logf("up %v after SIGCONT", took)
	if after.StartUS != before.StartUS || after.Attribute != wire.AttributePrimary {
		t.Errorf("came back as %+v, was %+v", after, before)
	}
}

func TestMonitorBackendTerminated(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "20ms"))
	before := w.untilUp()
	c.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgwatchdog'")
	eventually(t, "connected again", 5*time.Second, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.rights) == 2
	})
	if after := w.State(); after.Generation != before.Generation {
		t.Errorf("changed from %+v to %+v", before, after)
	}
}

func TestMonitorFull(t *testing.T) {
	c := mustPrimary(t)
	c.sql("CREATE ROLE wd LOGIN", "GRANT pg_monitor, pg_signal_backend TO wd", "CREATE ROLE app LOGIN")
	w := watchCluster(t, c.dsn("wd"), set("check_attr_interval", "20ms"))
	before := w.untilUp()
	root := c.connect(c.dsn("postgres"))
	for range 20 - 3 - 2 {
		c.connect(c.dsn("app"))
	}
	var reserved []*pgconn.PgConn // the superuser's three: one end leaves no slot for others
	for range 3 {
		reserved = append(reserved, c.connect(c.dsn("postgres")))
	}
	if _, err := root.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'wd'").ReadAll(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a warning", 5*time.Second, func() bool { return strings.Contains(w.lines(), codeTooManyConnections) })
	if n := strings.Count(w.lines(), "cannot check"); n != 1 {
		t.Errorf("%d lines for one trouble", n)
	}
	if !strings.Contains(w.lines(), "level=WARN") || !strings.Contains(w.lines(), "max_connections") {
		t.Errorf("expected a warning with advice, got %s", w.lines())
	}
	if now := w.State(); now.Status != wire.StatusUp || now.Generation != before.Generation {
		t.Errorf("full: %+v, was %+v", now, before)
	}
	for _, conn := range reserved {
		_ = conn.Close(t.Context())
	}
	eventually(t, "connected again", 5*time.Second, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.rights) == 2
	})
}

func TestMonitorSmartShutdown(t *testing.T) {
	c := mustPrimary(t)
	app := c.connect(c.dsn("postgres"))
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "20ms"))
	w.untilUp()
	c.signal(syscall.SIGTERM)
	waiting, _ := w.until("no new connects", hasStatus(wire.StatusUnresponsive))
	if waiting.Attribute != wire.AttributePrimary {
		t.Errorf("stopping as %+v", waiting)
	}
	if _, err := app.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
		t.Errorf("the application's session: %v", err)
	}
	_ = app.Close(t.Context())
	w.until("down", hasStatus(wire.StatusDown))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.releases != 1 {
		t.Errorf("released %d times", w.releases)
	}
}

func TestMonitorTCP(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", c.port), set("check_attr_interval", "20ms"))
	w.untilUp()
	if !strings.Contains(w.lines(), "cannot watch the postmaster") {
		t.Errorf("expected to be told, got %s", w.lines())
	}
	c.signal(syscall.SIGKILL)
	_, took := w.until("down", hasStatus(wire.StatusDown))
	t.Logf("over TCP down after %v", took)
}

func TestMonitorNoInstance(t *testing.T) {
	dir := t.TempDir()
	w := watchCluster(t, "host="+dir+" port=1234 user=x")
	w.until("down", hasStatus(wire.StatusDown))
	if strings.Contains(w.lines(), "level=ERROR") {
		t.Errorf("a missing instance is a state, not an error: %s", w.lines())
	}
}

func backendOf(t *testing.T, conn *pgconn.PgConn) int {
	t.Helper()
	rows, err := queryTexts(t.Context(), conn, 3, "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'pgwatchdog'")
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d sessions of the agent, %v", len(rows), err)
	}
	var pid int
	if _, err := fmt.Sscan(*rows[0][0], &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestMonitorHungBackend(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "20ms"), set("accept_timeout", "200ms"))
	before := w.untilUp()
	pid := backendOf(t, c.connect(c.dsn("postgres")))
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	eventually(t, "connected again", 5*time.Second, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.rights) == 2
	})
	if after := w.State(); after.Generation != before.Generation {
		t.Errorf("changed from %+v to %+v", before, after)
	}
}

func TestMonitorCrashedBackend(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "5ms"))
	before := w.untilUp()
	app := c.connect(c.dsn("postgres"))
	if err := syscall.Kill(int(app.PID()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("down", hasStatus(wire.StatusDown))
	after, took := w.until("recovered", hasStatus(wire.StatusUp))
	t.Logf("recovered after %v", took)
	if after.StartUS != before.StartUS || after.Generation <= before.Generation+1 {
		t.Errorf("from %+v to %+v", before, after)
	}
}

func TestMonitorHungWhileConnecting(t *testing.T) {
	c := mustPrimary(t)
	c.signal(syscall.SIGSTOP)
	w := watchCluster(t, c.dsn("postgres"), set("accept_timeout", "100ms"))
	w.until("unresponsive", hasStatus(wire.StatusUnresponsive))
	c.signal(syscall.SIGCONT)
	state, took := w.until("up", hasStatus(wire.StatusUp))
	t.Logf("up %v after SIGCONT: %s", took, describe(state))
	w.until("a primary", func(i wire.Instance) bool { return i.Attribute == wire.AttributePrimary })
}

func TestMonitorSlowConnect(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("accept_timeout", "100ms"), set("check_accept_interval", "1h"))
	w.untilUp()
	c.signal(syscall.SIGSTOP)
	w.SlowConnect()
	_, took := w.until("unresponsive", hasStatus(wire.StatusUnresponsive))
	t.Logf("unresponsive %v after the report", took)
	c.signal(syscall.SIGCONT)
	w.until("up", hasStatus(wire.StatusUp))
}

func TestMonitorSocketRemoved(t *testing.T) {
	c := mustPrimary(t)
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "10ms"), set("check_accept_interval", "100ms"), set("accept_timeout", "50ms"))
	before := w.untilUp()
	wal := func() uint64 { return w.State().WAL }
	app := c.connect(c.dsn("postgres"))
	if err := os.Remove(fmt.Sprintf("%s/.s.PGSQL.%d", c.root, c.port)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "some doors", 5*time.Second, func() bool { return time.Since(began) > 500*time.Millisecond })
	if _, err := app.Exec(t.Context(), "SELECT pg_switch_wal()").ReadAll(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the WAL position moves", 5*time.Second, func() bool { return wal() > before.WAL })
	if after := w.State(); after.Generation != before.Generation {
		t.Errorf("from %+v to %+v", before, after)
	}
}
