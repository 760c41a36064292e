// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Ports: conmgr's own, its pass-through to the primary, heartbeats.
const (
	portConsole   = 27546
	portPrimary   = 27551
	portHeartbeat = 27545
)

// world is a client host with conmgr, a primary on db1 and its streaming standby
// on db2, an agent beside each.
type world struct {
	*screen
	options
	lab              *agenttest.Lab
	client, db1, db2 *agenttest.Host
	primary, standby *agenttest.Postgres
	conmgr           *agenttest.Conmgr
	atClient, atDB2  *agenttest.Capture // heartbeats, as the kernels receive them

	ctx   context.Context // ends with the demo
	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// newWorld builds the hosts; the caller closes it, also after an error.
func newWorld(ctx context.Context, o options, s *screen) (w *world, err error) {
	w = &world{screen: s, options: o}
	w.ctx, w.stop = context.WithCancel(ctx)
	if w.lab, err = agenttest.New(ctx, "client", "db1", "db2"); err != nil {
		return w, err
	}
	w.client, w.db1, w.db2 = w.lab.Host("client"), w.lab.Host("db1"), w.lab.Host("db2")
	if w.atClient, err = w.client.Capture(portHeartbeat); err != nil {
		return w, err
	}
	w.atDB2, err = w.db2.Capture(portHeartbeat)
	return w, err
}

// close ends every process and removes every trace.
func (w *world) close() error {
	w.stop()
	var errs []error
	for _, c := range []*agenttest.Capture{w.atClient, w.atDB2} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if w.lab != nil {
		errs = append(errs, w.lab.Close())
	}
	w.tasks.Wait()
	return errors.Join(errs...)
}

// start starts instances, agents and conmgr.
func (w *world) start() (err error) {
	if w.primary, err = w.db1.Postgres(w.ctx, agenttest.PostgresOptions{}); err != nil {
		return err
	}
	if w.standby, err = w.db2.Postgres(w.ctx, agenttest.PostgresOptions{StreamFrom: w.primary}); err != nil {
		return err
	}
	if err := w.standby.WaitStreaming(w.ctx); err != nil {
		return err
	}
	version, err := w.primary.Query(w.ctx, "SELECT pg_catalog.current_setting('server_version')")
	if err != nil {
		return err
	}
	for _, p := range []*agenttest.Postgres{w.primary, w.standby} {
		if err := w.startAgent(p); err != nil {
			return err
		}
	}
	server := "PostgreSQL " + strings.Fields(version[0])[0]
	w.step("client  %v  applications and conmgr", w.client.Addr4)
	w.step("db1     %v  %s, primary, and pgwatchdog", w.db1.Addr4, server)
	w.step("db2     %v  %s, streaming standby, and pgwatchdog", w.db2.Addr4, server)
	return w.startConmgr()
}

func (w *world) startAgent(p *agenttest.Postgres) error {
	conf := map[string]string{"watchdog.min_heartbeat_interval": "10ms"}
	_, err := p.StartWatchdog(w.ctx, agenttest.WatchdogOptions{Conf: conf})
	return err
}

func (w *world) startConmgr() (err error) {
	w.conmgr, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Instances: []*agenttest.Postgres{w.primary, w.standby},
		Params: map[string]string{
			"heartbeat_interval": fmt.Sprintf("%dms", w.interval.Milliseconds()),
			"heartbeat_timeout":  fmt.Sprintf("%dms", w.timeout.Milliseconds()),
			"proxy_listen":       fmt.Sprintf("'%d:primary'", portPrimary),
			"log_min_messages":   "INFO",
		},
	})
	if err != nil {
		return err
	}
	output, err := w.conmgr.Ctl(w.ctx, "start", "--complete")
	if err != nil {
		return err
	}
	w.command("cm_ctl start --complete -D "+w.conmgr.Dir, output)
	return nil
}

// psql prepares an unmodified psql on the client host.
func (w *world) psql(ctx context.Context, port int, database string, args ...string) *agenttest.Cmd {
	args = append([]string{"-X", "-h", "localhost", "-p", fmt.Sprint(port), "-U", "postgres", "-d", database}, args...)
	cmd := w.client.Command(ctx, w.primary.Program("psql"), args...)
	cmd.Dir = "/"
	return cmd
}

// bounded is the context of one step.
func (w *world) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.ctx, w.limit)
}

// until looks until the fact is there, and fails when the limit is over.
func (w *world) until(what string, is func(context.Context) (bool, error)) error {
	ctx, cancel := w.bounded()
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := is(ctx)
		switch {
		case ctx.Err() != nil:
			return w.missed(what)
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case ok:
			return nil
		}
		<-tick.C
	}
}

// await takes what a channel delivers, and fails when the limit is over.
func await[T any](w *world, what string, from <-chan T) (got T, err error) {
	ctx, cancel := w.bounded()
	defer cancel()
	select {
	case got = <-from:
		return got, nil
	case <-ctx.Done():
		return got, w.missed(what)
	}
}

func (w *world) missed(what string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%s: did not happen within %v", what, w.limit)
}

// lastBeat is when the kernel behind the capture last received a heartbeat from a
// host.
func lastBeat(c *agenttest.Capture, from *agenttest.Host) (mono.Instant, error) {
	at, err := c.LastReceived(from.Addr4)
	if err == nil && at.IsZero() {
		err = fmt.Errorf("no heartbeat from %s was ever received", from.Name)
	}
	return at, err
}
