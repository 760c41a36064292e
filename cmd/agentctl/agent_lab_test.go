// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// The real pgwatchdog answers root and its own user, and nobody else, whatever the
// modes of its directory and its socket are; and what it says of itself is so.
func TestAgentAnswers(t *testing.T) {
	lab := agenttest.MustLab(t, "db")
	db := lab.Host("db")
	pg := agenttest.MustPostgres(t, db, agenttest.PostgresOptions{})
	if err := pg.CreateRole(t.Context(), "wd", "pg_monitor", "pg_signal_backend"); err != nil {
		t.Fatal(err)
	}
	process, err := pg.StartWatchdog(t.Context(), agenttest.WatchdogOptions{
		User: "nobody", DSN: strings.Replace(pg.DSN(), "user=postgres", "user=wd", 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(lab.Dir, db.Name, pg.Name, "watchdog")
	look := func() map[string]finding {
		s := newSession(0, "")
		s.kernel, s.ask = healthyKernel(), control.Ask
		s.run(t.Context(), "doctor", "--json", "--state-dir", state)
		return mustFindings(t, s.out.String())
	}
	var all map[string]finding
	agenttest.Eventually(t, limit, "the agent answers", func() bool {
		all = look()
		return all[checkAgent].Result == works && all[checkAgentDatabase].Result == works && all[checkAgentInstance].Result == works
	})
	for _, want := range []expect{
		{checkAgentInstance, works, "up primary", ""}, {checkAgentDatabase, works, "role wd", ""},
		{checkAgentSockets, missing, "CAP_NET_ADMIN", "rights of the agent"}, // though it is root who asks
		{checkAgentDescriptors, works, "164 are needed for 100", ""}, {checkKills, works, "enabled", ""},
	} {
		want.in(t, all)
	}

	path, err := lab.Binary(t.Context(), "agentctl")
	if err != nil {
		t.Fatal(err)
	}
	pauseAs := func(user string) (string, int) {
		cmd := db.Command(t.Context(), path, "pause", "10m", "--state-dir", state)
		cmd.User = user
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, exit := pauseAs("nobody"); exit != 0 || !strings.Contains(out, ", by nobody\n") {
		t.Errorf("its own user: %d, %s", exit, out)
	}
	if out, exit := pauseAs(""); exit != 0 || !strings.Contains(out, ", by root\n") {
		t.Errorf("root: %d, %s", exit, out)
	}
	if out, exit := pauseAs("daemon"); exit != 1 || !strings.Contains(out, "run as root or as the user of pgwatchdog") {
		t.Errorf("another user: %d, %s", exit, out)
	}
	for _, name := range []string{state, filepath.Join(state, control.SocketName)} {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, exit := pauseAs("daemon"); exit != 1 || !strings.Contains(out, "only root and the user of pgwatchdog may ask") {
		t.Errorf("another user who gets to the socket: %d, %s", exit, out)
	}
	expect{checkKills, warning, "by root", "--resume"}.in(t, look())

	if _, err := process.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect{checkAgent, missing, "without a goodbye", "start it"}.in(t, look())
}
