// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Ports of the world.
const (
	portConsole   = 27546
	portAny       = 27553
	portHeartbeat = 27545
)

// patience bounds every wait for the lab. Working ones do not wait for it.
const patience = 30 * time.Second

// world is a client host with conmgr, and a database host with its agent.
type world struct {
	lab                  *agenttest.Lab
	client, db           *agenttest.Host
	instance             *agenttest.Postgres
	agent                *agenttest.Process
	cm                   *agenttest.Conmgr
	clientFrames, frames *agenttest.Capture // received by client, by db
	admin                *pgx.Conn          // over conmgr.sock
}

func newWorld(ctx context.Context, t trial) (*world, error) {
	o := agenttest.Options{Hosts: []string{"client", "db1"}}
	if t.carrier() {
		o = agenttest.Options{Hosts: []string{"client", "db1", "other"}, Tap: []string{"client", "other"}}
	}
	lab, err := agenttest.NewWith(ctx, o)
	if err != nil {
		return nil, err
	}
	w := &world{lab: lab, client: lab.Host("client"), db: lab.Host("db1")}
	if err := w.start(ctx, t); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) start(ctx context.Context, t trial) (err error) {
	if w.clientFrames, err = w.client.Capture(portHeartbeat); err != nil {
		return err
	}
	if w.frames, err = w.db.Capture(portHeartbeat); err != nil {
		return err
	}
	if w.instance, err = w.db.Postgres(ctx, agenttest.PostgresOptions{}); err != nil {
		return err
	}
	if err := w.prepare(ctx, t); err != nil {
		return err
	}
	if err := w.cm.Start(ctx); err != nil {
		return err
	}
	if err := w.openAdmin(ctx); err != nil {
		return err
	}
	if err := w.awaitArmed(ctx); err != nil {
		return err
	}
	if t.load == loadBusy {
		return agenttest.KeepBusy(ctx)
	}
	return nil
}

// prepare starts the agent and makes conmgr's directory.
func (w *world) prepare(ctx context.Context, t trial) error {
	watchdog := agenttest.WatchdogOptions{Conf: map[string]string{"watchdog.min_heartbeat_interval": "10ms"}}
	params := map[string]string{
		"heartbeat_interval":         fmt.Sprintf("%dms", t.interval.Milliseconds()),
		"heartbeat_timeout":          fmt.Sprintf("%dms", t.timeout().Milliseconds()),
		"heartbeat_connect_interval": "200ms",
		"link_down_grace":            "0",
		"proxy_listen":               fmt.Sprintf("'%d:any'", portAny),
	}
	if t.udp {
		theirs, err1 := w.db.KeyFile("")
		ours, err2 := w.client.KeyFile("nobody")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		watchdog.Args = []string{"--key-file", theirs}
		params["heartbeat_transport"], params["heartbeat_key_file"] = "udp", "'"+ours+"'"
	}
	var err error
	if w.agent, err = w.instance.StartWatchdog(ctx, watchdog); err != nil {
		return err
	}
	w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{Instances: []*agenttest.Postgres{w.instance}, Params: params})
	return err
}

// openAdmin connects to the console over conmgr.sock as soon as that is there.
func (w *world) openAdmin(ctx context.Context) error {
	return eventually(ctx, "conmgr.sock", func() (err error) {
		w.admin, err = w.connect(ctx, "host="+w.cm.Dir+" dbname=conmgr", "unix", filepath.Join(w.cm.Dir, "conmgr.sock"))
		return err
	})
}

// connect opens a connection from the client host.
func (w *world) connect(ctx context.Context, dsn, network, addr string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(dsn + " user=postgres sslmode=disable connect_timeout=2")
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return w.client.Dial(ctx, network, addr) }
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, cfg)
}

// awaitArmed waits until conmgr monitors the instance again.
func (w *world) awaitArmed(ctx context.Context) error {
	return eventually(ctx, "a monitored instance", func() error {
		results, err := w.admin.PgConn().Exec(ctx, "SHOW INSTANCES").ReadAll()
		if err != nil {
			return err
		}
		return monitored(results)
	})
}

func monitored(results []*pgconn.Result) error {
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return errors.New("SHOW INSTANCES: expected one instance")
	}
	row := map[string]string{}
	for i, f := range results[0].FieldDescriptions {
		row[f.Name] = string(results[0].Rows[0][i])
	}
	if row["monitoring"] != "monitored" || row["status"] != "up" {
		return fmt.Errorf("monitoring %q, status %q", row["monitoring"], row["status"])
	}
	return nil
}

// eventually tries until there is no error.
func eventually(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// logs is the end of what the daemons have written.
func (w *world) logs() string {
	var b strings.Builder
	for _, p := range []*agenttest.Process{w.agent, w.cm.Process} {
		text, _ := p.Log()
		fmt.Fprintf(&b, "%s:\n%s\n", p.Name, text[max(0, len(text)-4000):])
	}
	return b.String()
}

func (w *world) close() error {
	for _, c := range []*agenttest.Capture{w.clientFrames, w.frames} {
		if c != nil {
			_ = c.Close()
		}
	}
	return w.lab.Close()
}
