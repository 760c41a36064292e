// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// watched is a monitor that runs, and what it said.
type watched struct {
	*Monitor
	t        *testing.T
	mu       sync.Mutex // guards the following
	states   []wire.Instance
	at       []time.Time
	settings []*ServerSettings
	rights   []Rights
	releases int
	log      bytes.Buffer
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *watched) lines() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// watchCluster runs a monitor until the test ends.
func watchCluster(t *testing.T, dsn string, entries ...conf.Entry) *watched {
	t.Helper()
	config, findings := Resolve(Sources{Flags: entries}, nil)
	if len(findings.Errors) > 0 {
		t.Fatal(findings.Errors)
	}
	w := &watched{t: t}
	w.Monitor = NewMonitor(MonitorOptions{
		Connect: ConnectOptions{DSN: dsn}, Config: config, Log: slog.New(slog.NewTextHandler(w, nil)),
		OnState: func(i wire.Instance) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.states, w.at = append(w.states, i), append(w.at, time.Now())
		},
		OnSettings: func(s *ServerSettings) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.settings = append(w.settings, s)
		},
		OnRights: func(_ string, r Rights) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rights = append(w.rights, r)
		},
		OnRelease: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.releases++
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the monitor:\n%s", w.lines())
		}
	})
	return w
}

// until waits for a state and returns it and how long it took.
func (w *watched) until(what string, is func(wire.Instance) bool) (wire.Instance, time.Duration) {
	w.t.Helper()
	var state wire.Instance
	took := eventually(w.t, what, 15*time.Second, func() bool {
		state = w.State()
		return is(state)
	})
	return state, took
}

func (w *watched) untilUp() wire.Instance {
	w.t.Helper()
	state, _ := w.until("the instance up", func(i wire.Instance) bool { return i.Status == wire.StatusUp })
	return state
}

func hasStatus(s wire.Status) func(wire.Instance) bool {
	return func(i wire.Instance) bool { return i.Status == s }
}

func set(name, value string) conf.Entry {
	return conf.Entry{Name: "watchdog." + name, Value: value, File: "flag"}
}

func TestMonitorPromotion(t *testing.T) {
	primary := mustPrimary(t)
	p := watchCluster(t, primary.dsn("postgres"))
	first := p.untilUp()
	for _, test := range []struct {
		name, directory string
		fast            bool
		limit           time.Duration
	}{
		{"directory watched", "yes", false, 100 * time.Millisecond},
		{"fast checks", "no", true, 150 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			standby := &cluster{}
			*standby = *primary
			standby.t = t
			standby = standby.mustStandby()
			role := "postgres"
			if test.directory == "no" { // pg_monitor minus the right to know the directory
				primary.sql("CREATE ROLE blind LOGIN", "GRANT pg_read_all_stats TO blind")
				role = "blind"
				waitForRole(t, standby, role)
			}
			s := watchCluster(t, standby.dsn(role), set("check_attr_interval", "10s"))
			s.Fast(test.fast)
			before := s.untilUp()
			if before.Attribute != wire.AttributeStandby || before.Timeline != 1 || before.SystemID != first.SystemID ||
				before.Port != standby.port || before.StartUS <= first.StartUS {
				t.Fatalf("standby of %+v is %+v", first, before)
			}
			// A second session sees the end of recovery from outside.
			outside := standby.connect(standby.dsn("postgres"))
			standby.promote()
			eventually(t, "promoted", 10*time.Second, func() bool { return !inRecovery(t, outside) })
			after, took := s.until("a primary", func(i wire.Instance) bool { return i.Attribute == wire.AttributePrimary })
			t.Logf("promotion seen %v after a polling session saw it", took)
			if took > 2*test.limit { // generous: two cores, many tests
				t.Errorf("promotion seen after %v, expected within %v", took, test.limit)
			}
			if after.Timeline != 2 || after.Generation <= before.Generation || after.Status != wire.StatusUp {
				t.Errorf("promoted to %+v", after)
			}
		})
	}
	if first.Attribute != wire.AttributePrimary || first.Timeline != 1 || first.WAL == 0 || first.SystemID == 0 ||
		first.Port != primary.port || first.StartUS == 0 || first.ReadOnly {
		t.Errorf("primary is %+v", first)
	}
}

func waitForRole(t *testing.T, c *cluster, role string) {
	conn := c.connect(c.dsn("postgres"))
	eventually(t, "role replicated", 10*time.Second, func() bool {
		r, err := queryTexts(t.Context(), conn, 2, "SELECT 1 FROM pg_roles WHERE rolname = $1 AND pg_has_role(oid, 'pg_read_all_stats', 'USAGE')", role)
		return err == nil && len(r) == 1
	})
}

func inRecovery(t *testing.T, conn *pgconn.PgConn) bool {
	rows, err := queryTexts(t.Context(), conn, 2, "SELECT pg_is_in_recovery()::text")
	if err != nil {
		t.Fatal(err)
	}
	return *rows[0][0] == "true"
}

// An end to the agent's own backend says nothing about the instance.
func TestMonitorLeastPrivilege(t *testing.T) {
	c := mustPrimary(t, "watchdog.port = 27999", "watchdog.on_timeot = wait")
	c.sql("CREATE ROLE wd LOGIN", "GRANT pg_monitor, pg_signal_backend TO wd", "CREATE ROLE nobody LOGIN", "CREATE ROLE secret LOGIN PASSWORD 'x'")
	for _, test := range []struct {
		role string
		want Rights
		miss int
	}{
		{"wd", Rights{ReadAllStats: true, SignalBackend: true, ReadAllSettings: true}, 0},
		{"nobody", Rights{}, 2},
		{"postgres", Rights{true, true, true, true, true, true}, 0},
	} {
		t.Run(test.role, func(t *testing.T) {
			w := watchCluster(t, c.dsn(test.role))
			state := w.untilUp()
			if state.Attribute != wire.AttributePrimary || state.Timeline != 1 || state.SystemID == 0 {
				t.Errorf("%+v", state)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.rights[0] != test.want || len(w.rights[0].Missing(test.role)) != test.miss {
				t.Errorf("rights %+v missing %q", w.rights[0], w.rights[0].Missing(test.role))
			}
			got := w.settings[0]
			if !slices.ContainsFunc(got.Entries, func(e conf.Entry) bool { return e.Name == "watchdog.port" && e.Value == "27999" }) ||
				got.Port != c.port || got.MaxConnections != 20 || got.ListenAddresses != "127.0.0.1" {
				t.Errorf("settings %+v", got)
			}
			_, findings := Resolve(Sources{Server: got}, nil)
			if misspelt := len(findings.Warnings) == 1 && strings.Contains(findings.Warnings[0], "on_timeot"); misspelt != test.want.FileSettings {
				t.Errorf("warnings %q", findings.Warnings)
			}
		})
	}
	t.Run("denied", func(t *testing.T) {
		if err := os.WriteFile(c.data+"/pg_hba.conf", []byte("local all postgres trust\nlocal all secret scram-sha-256\n"), 0); err != nil {
			t.Fatal(err)
		}
		c.sql("SELECT pg_reload_conf()")
		for role, want := range map[string]string{"secret": "expected a password", "wd": "pg_hba.conf"} {
			w := watchCluster(t, c.dsn(role))
			state := w.untilUp()
			eventually(t, "an error", 5*time.Second, func() bool {
				return strings.Contains(w.lines(), "level=ERROR") && strings.Contains(w.lines(), want)
			})
			if state.Attribute != wire.AttributeUnknown || state.StartUS != 0 {
				t.Errorf("%s sees %+v", role, state)
			}
		}
	})
}

// Only what the postmaster has counts: neither a setting of the agent's role nor
// of its database changes whom it kills or what it says of the instance.
func TestMonitorSettingsOfRoles(t *testing.T) {
	c := mustPrimary(t, "watchdog.dry_run = on", "watchdog.on_hang = ignore")
	c.sql("CREATE ROLE wd LOGIN", "GRANT pg_monitor TO wd",
		"ALTER ROLE wd SET watchdog.dry_run = off", "ALTER DATABASE postgres SET \"Watchdog.ON_Timeout\" = 'ignore'",
		"ALTER ROLE wd SET default_transaction_read_only = on", "ALTER ROLE wd SET search_path = nonsense")
	read := func(grant bool) (Findings, *Config, wire.Instance) {
		w := watchCluster(t, c.dsn("wd"))
		state := w.untilUp()
		w.mu.Lock()
		defer w.mu.Unlock()
		if grant != w.rights[0].FileSettings {
			t.Errorf("FileSettings is %v", !grant)
		}
		config, findings := Resolve(Sources{Server: w.settings[0]}, nil)
		return findings, config, state
	}
	findings, config, state := read(false)
	if config.OnHang != "ignore" || config.OnTimeout != "terminate" || config.DryRun || state.ReadOnly {
		t.Errorf("config %+v, state %+v", config, state)
	}
	if all := fmt.Sprint(findings.Warnings); strings.Count(all, "postgresql.conf only") != 2 || !strings.Contains(all, "default_transaction_read_only: set for role wd") {
		t.Errorf("warnings %q", findings.Warnings)
	}
	c.sql("GRANT SELECT ON pg_file_settings TO wd", "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO wd")
	findings, config, _ = read(true)
	if !config.DryRun || config.OnTimeout != "terminate" || len(findings.Errors) > 0 {
		t.Errorf("config %+v, findings %+v", config, findings)
	}
}

func TestMonitorReload(t *testing.T) {
	c := mustPrimary(t, "watchdog.dry_run = on")
	w := watchCluster(t, c.dsn("postgres"), set("check_attr_interval", "10ms"))
	w.untilUp()
	first := w.lastSettings()
	config, _ := Resolve(Sources{Server: first}, nil)
	c.configure("watchdog.dry_run = off", "watchdog.accept_timeout = fast", "watchdog.port = 1", "default_transaction_read_only = on")
	c.sql("SELECT pg_reload_conf()")
	eventually(t, "settings read again", 5*time.Second, func() bool { return w.lastSettings() != first })
	reloaded, findings := Resolve(Sources{Server: w.lastSettings()}, config)
	if reloaded.DryRun || reloaded.AcceptTimeout != config.AcceptTimeout || reloaded.Port != 27545 {
		t.Errorf("reloaded %+v", reloaded)
	}
	if len(findings.Errors) != 1 || !strings.Contains(findings.Errors[0], "postgresql.conf:") || !strings.Contains(findings.Errors[0], "accept_timeout") {
		t.Errorf("errors %q", findings.Errors)
	}
	if len(findings.Warnings) != 1 || !strings.Contains(findings.Warnings[0], "restarted") {
		t.Errorf("warnings %q", findings.Warnings)
	}
	w.until("read-only", func(i wire.Instance) bool { return i.ReadOnly })
}

func (w *watched) lastSettings() *ServerSettings {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.settings) == 0 {
		return nil
	}
	return w.settings[len(w.settings)-1]
}

func TestMonitorBadDSN(t *testing.T) {
	for _, dsn := range []string{"host=a,b", "port=x", "nonsense"} {
		if err := NewMonitor(MonitorOptions{Connect: ConnectOptions{DSN: dsn}}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "dsn") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

// backendOf returns the process of the monitor's own session.
// One hung backend, the agent's own, is not a hung instance.
// A crashed backend makes the postmaster end every session: same postmaster, but
// down until it has recovered.
// With no session held, a hung postmaster is unresponsive, not down.
// A slow connect that a conmgr reports has the door tried at once.
// A socket file that somebody removed is neither death nor a hung postmaster while
// the held connection answers.
// Nothing of a monitor is left after Run.
func TestMonitorLeavesNothing(t *testing.T) {
	c := mustPrimary(t)
	count := func() (fds int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	run := func() {
		m := NewMonitor(MonitorOptions{Connect: ConnectOptions{DSN: c.dsn("postgres")}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		eventually(t, "up", 5*time.Second, func() bool { return m.State().Status == wire.StatusUp })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	run()
	fds, goroutines := count(), runtime.NumGoroutine()
	for range 5 {
		run()
	}
	eventually(t, "no descriptor and no goroutine left", 5*time.Second, func() bool {
		return count() <= fds && runtime.NumGoroutine() <= goroutines
	})
}
