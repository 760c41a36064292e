// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Ports of the world.
const (
	portConsole   = 27546
	portAny       = 27553
	portHeartbeat = 27545
)

// world is a client host with conmgr, and a database host with its agent.
type world struct {
	lab                  *agenttest.Lab
	client, db           *agenttest.Host
	instance             *agenttest.Postgres
	agent                *agenttest.Process
	cm                   *agenttest.Conmgr
	clientFrames, frames *agenttest.Capture // on client, on db
}

func newWorld(ctx context.Context) (*world, error) {
	lab, err := agenttest.New(ctx, "client", "db1")
	if err != nil {
		return nil, err
	}
	w := &world{lab: lab, client: lab.Host("client"), db: lab.Host("db1")}
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) start(ctx context.Context) (err error) {
	if w.clientFrames, err = w.client.Capture(portHeartbeat); err != nil {
		return err
	}
	if w.frames, err = w.db.Capture(portHeartbeat); err != nil {
		return err
	}
	for _, c := range []*agenttest.Capture{w.clientFrames, w.frames} {
		c.CountGaps(interval + interval/4) // late, see agent/heartbeat
	}
	if w.instance, err = w.db.Postgres(ctx, agenttest.PostgresOptions{}); err != nil {
		return err
	}
	theirs, err1 := w.db.KeyFile("")
	ours, err2 := w.client.KeyFile("nobody")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w.agent, err = w.instance.StartWatchdog(ctx, agenttest.WatchdogOptions{
		Conf: map[string]string{"watchdog.min_heartbeat_interval": "10ms"}, Args: []string{"--key-file", theirs},
	})
	if err != nil {
		return err
	}
	w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Instances: []*agenttest.Postgres{w.instance}, Params: conmgrParams(ours),
	})
	if err != nil {
		return err
	}
	return w.cm.Start(ctx)
}

func conmgrParams(key string) map[string]string {
	return map[string]string{
		"heartbeat_interval":  fmt.Sprintf("%dms", interval.Milliseconds()),
		"heartbeat_timeout":   fmt.Sprintf("%dms", timeout.Milliseconds()),
		"heartbeat_transport": "udp",
		"heartbeat_key_file":  "'" + key + "'",
		"agent_silence":       "fault",
		"proxy_listen":        fmt.Sprintf("'%d:any'", portAny),
	}
}

// connect opens a connection from the client host.
func (w *world) connect(ctx context.Context, addr netip.AddrPort, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%v port=%d dbname=%s user=postgres sslmode=disable connect_timeout=10",
		addr.Addr(), addr.Port(), database))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return w.client.Dial(ctx, network, addr)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	return pgx.ConnectConfig(ctx, cfg)
}

// reading is the state of all counters at one moment.
type reading struct {
	at       time.Time
	toServer direction
	toClient direction
	missed   uint64 // by conmgr's own account

	oversleep time.Duration // the longest since the reading before
}

// direction is one of the two ways between the hosts: frames of heartbeats.
type direction struct {
	sent, received int // as the kernels of both ends saw them
	dropped        uint64
	gaps           agenttest.Gaps // since the reading before
}

// look reads all counters.
func (w *world) look(ctx context.Context) (r reading, err error) {
	r.at = time.Now()
	client, db := w.client.Addr4, w.db.Addr4
	dropped, err := w.db.Dropped(ctx)
	if err != nil {
		return r, err
	}
	r.toServer.dropped, r.toClient.dropped = dropped.In, dropped.Out
	var errs [5]error
	r.toServer.received, r.toClient.sent, errs[0] = w.frames.Frames(client)
	r.toClient.received, r.toServer.sent, errs[1] = w.clientFrames.Frames(db)
	r.toServer.gaps, errs[2] = w.frames.TakeGaps(client)
	r.toClient.gaps, errs[3] = w.clientFrames.TakeGaps(db)
	r.missed, errs[4] = w.missed(ctx)
	return r, errors.Join(errs[:]...)
}

// missed is how many frames conmgr has missed, as cm_ctl tells.
func (w *world) missed(ctx context.Context) (uint64, error) {
	text, err := w.cm.Ctl(ctx, "status", "-i", "instance", "--json", "-t", "30")
	if err != nil {
		return 0, err
	}
	var status struct {
		Instances []struct {
			Lost uint64 `json:"lost"`
		} `json:"instance_information"`
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		return 0, fmt.Errorf("cm_ctl status: %w", err)
	}
	if len(status.Instances) != 1 {
		return 0, fmt.Errorf("cm_ctl status: %d instances, expected one", len(status.Instances))
	}
	return status.Instances[0].Lost, nil
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
