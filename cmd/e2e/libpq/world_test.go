// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

const (
	portConsole   = 27546
	portHeartbeat = 27545
	timeout       = time.Second
	// generous is how long an expectation may take on a machine in trouble.
	generous = 2 * time.Minute
)

// world is a primary with a standby, their agents, and a client host with a conmgr
// and the library.
type world struct {
	*testing.T
	client, db1, db2 *agenttest.Host
	primary, standby *agenttest.Postgres
	cm               *agenttest.Conmgr
	heartbeats       *agenttest.Capture
	hba              []string // of the standby; nil: the default lines
	dir              string   // of the library
}

// newWorld starts everything but conmgr. prepare may change the primary before the
// standby is copied from it.
func newWorld(t *testing.T, prepare func(*world)) *world {
	t.Helper()
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	needBuild(t)
	lab := agenttest.MustLab(t, "client", "db1", "db2")
	w := &world{T: t, client: lab.Host("client"), db1: lab.Host("db1"), db2: lab.Host("db2")}
	w.primary = agenttest.MustPostgres(t, w.db1, agenttest.PostgresOptions{})
	if prepare != nil {
		prepare(w)
	}
	w.standby = agenttest.MustPostgres(t, w.db2, agenttest.PostgresOptions{StreamFrom: w.primary, HBA: w.hba})
	w.must(w.standby.WaitStreaming(t.Context()))
	for _, p := range []*agenttest.Postgres{w.primary, w.standby} {
		// What breaks a connection here is the library, not the server's side.
		_, err := p.StartWatchdog(t.Context(), agenttest.WatchdogOptions{Conf: map[string]string{"watchdog.on_disconnect": "ignore"}})
		w.must(err)
	}
	w.heartbeats = agenttest.MustCapture(t, w.client, portHeartbeat)
	var err error
	w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Instances: []*agenttest.Postgres{w.primary, w.standby},
		Params: map[string]string{
			"heartbeat_interval": "100ms", "heartbeat_timeout": fmt.Sprintf("%dms", timeout.Milliseconds()),
			"log_min_messages": "INFO", "backend_host0": "'db1'", "backend_host1": "'db2'",
		},
	})
	w.must(err)
	w.dir = install(t, w.client)
	return w
}

// startConmgr starts it and waits until it knows both instances.
func (w *world) startConmgr() {
	w.Helper()
	w.must(w.cm.Start(w.Context()))
	w.awaitRoles()
}

func (w *world) awaitRoles() {
	w.Helper()
	agenttest.Eventually(w, generous, "primary and standby are known", func() bool {
		text, err := w.cm.Ctl(w.Context(), "status", "-i", "instance")
		return err == nil && strings.Contains(text, "primary") && strings.Contains(text, "standby") &&
			!strings.Contains(text, "unknown")
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// lastHeartbeat is when the client's kernel got the last one from a host.
func (w *world) lastHeartbeat(from *agenttest.Host) mono.Instant {
	w.Helper()
	return agenttest.MustLastReceived(w, w.heartbeats, from.Addr4)
}

// env is the environment of a program whose connections go to conmgr.
func (w *world) env(name string) []string {
	return w.envAt(name, "localhost", portConsole, true)
}

func (w *world) envAt(name, host string, port int, preload bool) []string {
	env := []string{
		"PATH=/usr/lib/postgresql/bin:/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C",
		"PGHOST=" + host, fmt.Sprintf("PGPORT=%d", port), "PGUSER=postgres", "PGDATABASE=postgres",
		"PGTARGETSESSIONATTRS=primary", "PGCONNECT_TIMEOUT=10", "PGAPPNAME=" + name,
	}
	if preload {
		env = append(env, "LD_PRELOAD="+w.dir+"/libconmgr.so")
	}
	return env
}

// program is the path of one of the library's programs.
func (w *world) program(name string) string { return w.dir + "/programs/" + name }

// command prepares a program on the client host, as conmgr's user.
func (w *world) command(ctx context.Context, env []string, args ...string) *agenttest.Cmd {
	cmd := w.client.Command(ctx, args[0], args[1:]...)
	cmd.User, cmd.Dir, cmd.Env = "nobody", "/", env
	return cmd
}

// output runs a program that must work and returns what it wrote to both outputs.
func (w *world) output(env []string, args ...string) string {
	w.Helper()
	out, err := w.try(env, args...)
	if err != nil {
		w.Fatalf("%s: %v\n%s", args[0], err, out)
	}
	return out
}

func (w *world) try(env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), generous)
	defer cancel()
	out, err := w.command(ctx, env, args...).CombinedOutput()
	return string(out), err
}
