// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Ports on the client's loopback.
const (
	portConsole   = 27546
	portPrimary   = 27551
	portHAProxy   = 5000
	portPgBouncer = 6432
)

// user is who runs conmgr, pgbench and psql.
const user = "nobody"

// world is a client host with conmgr and two proxies, the instance on db1, and a
// standby on db0, which is listed before it and dies now and then.
type world struct {
	lab              *agenttest.Lab
	client, db0, db1 *agenttest.Host
	primary, standby *agenttest.Postgres
	cm               *agenttest.Conmgr
	between          map[string]*agenttest.Process // the client and the instance, by way
	dir              string                        // of what the client's programs read
	companion        string                        // libconmgr.so
}

func newWorld(ctx context.Context) (*world, error) {
	lab, err := agenttest.New(ctx, "client", "db0", "db1")
	if err != nil {
		return nil, err
	}
	w := &world{lab: lab, client: lab.Host("client"), db0: lab.Host("db0"), db1: lab.Host("db1")}
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) start(ctx context.Context) (err error) {
	conf := map[string]string{"shared_buffers": "256MB", "max_connections": "200"}
	if w.primary, err = w.db1.Postgres(ctx, agenttest.PostgresOptions{Conf: conf}); err != nil {
		return err
	}
	if err := w.fill(ctx); err != nil {
		return err
	}
	if w.standby, err = w.db0.Postgres(ctx, agenttest.PostgresOptions{Conf: conf, StreamFrom: w.primary}); err != nil {
		return err
	}
	for _, p := range []*agenttest.Postgres{w.standby, w.primary} {
		if _, err := p.StartWatchdog(ctx, agenttest.WatchdogOptions{}); err != nil {
			return err
		}
	}
	w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Instances: []*agenttest.Postgres{w.standby, w.primary},
		Params: map[string]string{
			"heartbeat_interval": "1s", "heartbeat_timeout": "3s", // the preset lan
			"proxy_listen": fmt.Sprintf("'%d:primary'", portPrimary),
		},
	})
	if err != nil {
		return err
	}
	if err := w.cm.Start(ctx); err != nil {
		return err
	}
	w.between = map[string]*agenttest.Process{"proxy": w.cm.Process, "pass-through": w.cm.Process}
	if w.dir, err = w.client.Mkdir(user, "bench"); err != nil {
		return err
	}
	if err := w.installLibrary(ctx); err != nil {
		return err
	}
	if err := w.startProxies(); err != nil {
		return err
	}
	return w.awaitStates(ctx, "monitored", "monitored")
}

// fill makes pgbench's tables, which all sessions have soon read whole, and one of 100
// MB to copy.
func (w *world) fill(ctx context.Context) error {
	cmd := w.db1.Command(ctx, w.primary.Program("pgbench"), "-i", "-q")
	cmd.Env = append(os.Environ(), "PGHOST="+w.primary.SocketDir, "PGUSER=postgres", "PGDATABASE=postgres")
	if _, err := cmd.Output(); err != nil {
		return err
	}
	for _, sql := range []string{
		fmt.Sprintf("CREATE TABLE big AS SELECT repeat('x', 1000) AS line FROM generate_series(1, %d)", copyRows),
		"VACUUM ANALYZE", "CHECKPOINT",
	} {
		if err := w.primary.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// installLibrary builds libconmgr and puts it where its user can read it.
func (w *world) installLibrary(ctx context.Context) error {
	root, err := agenttest.ModuleRoot()
	if err != nil {
		return err
	}
	build := filepath.Join(root, "bin", "libpq")
	if _, err := w.client.Command(ctx, "make", "-s", "-C", filepath.Join(root, "conmgr", "libpq"), "BUILD="+build).Output(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(build, "libconmgr.so"))
	if err != nil {
		return err
	}
	w.companion = filepath.Join(w.dir, "libconmgr.so")
	return os.WriteFile(w.companion, text, 0o755)
}

// startProxies starts HAProxy and PgBouncer as their manuals begin.
func (w *world) startProxies() error {
	haproxy := filepath.Join(w.dir, "haproxy.cfg")
	pgbouncer := filepath.Join(w.dir, "pgbouncer.ini")
	users := filepath.Join(w.dir, "users.txt")
	for file, text := range map[string]string{
		haproxy: fmt.Sprintf(`global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:%d
    server db1 %v:5432
`, portHAProxy, w.db1.Addr4),
		pgbouncer: fmt.Sprintf(`[databases]
* = host=%v port=5432
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = session
max_client_conn = 1000
default_pool_size = 100
`, w.db1.Addr4, portPgBouncer, users),
		users: "\"postgres\" \"\"\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, spec := range []agenttest.Spec{
		{Name: "haproxy", Path: "haproxy", Args: []string{"-db", "-f", haproxy}, User: user, Dir: "/"},
		{Name: "pgbouncer", Path: "pgbouncer", Args: []string{"-q", pgbouncer}, User: user, Dir: "/"},
	} {
		p, err := w.client.Start(spec)
		if err != nil {
			return err
		}
		w.between[spec.Name] = p
	}
	return nil
}

// awaitStates waits until conmgr says of db0 and of db1 what is expected.
func (w *world) awaitStates(ctx context.Context, db0, db1 string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := w.psql(ctx, "direct", "-d", "conmgr", "-c", "SHOW INSTANCES")
		lines := strings.Split(text, "\n")
		if err == nil && len(lines) >= 2 && strings.Contains(lines[0], "|"+db0+"|") && strings.Contains(lines[1], "|"+db1+"|") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for db0 %s, db1 %s: %w: %s", db0, db1, errors.Join(err, ctx.Err()), text)
		case <-tick.C:
		}
	}
}

// kill lets db0 die silently, and returns when conmgr knows.
func (w *world) kill(ctx context.Context) error {
	if _, err := w.db0.Cut(ctx); err != nil {
		return err
	}
	return w.awaitStates(ctx, "faulted", "monitored")
}

// revive undoes it.
func (w *world) revive(ctx context.Context) error {
	if _, err := w.db0.Heal(ctx); err != nil {
		return err
	}
	return w.awaitStates(ctx, "monitored", "monitored")
}

func (w *world) close() error { return w.lab.Close() }
