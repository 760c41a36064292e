// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

const (
	portHeartbeat = 27545
	// maxSessions fits into the addresses that the client host has.
	maxSessions = 16000
	processes   = 4 // of load
)

// world is a database host with its instance, and a client host that owns a whole
// network of addresses.
type world struct {
	lab        *agenttest.Lab
	client, db *agenttest.Host
	instance   *agenttest.Postgres
	keyFile    string
	program    string // this one
	agent      *agenttest.Process
	trials     int
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
	if w.program, err = os.Executable(); err != nil {
		return err
	}
	if w.keyFile, err = w.db.KeyFile(""); err != nil {
		return err
	}
	for _, c := range []*agenttest.Cmd{
		w.client.Command(ctx, "ip", "route", "add", "local", "10.100.0.0/16", "dev", "lo"),
		w.db.Command(ctx, "ip", "route", "add", "10.100.0.0/16", "via", w.client.Addr4.String()),
	} {
		if _, err := c.Output(); err != nil {
			return err
		}
	}
	if err := w.switchElsewhere(); err != nil {
		return err
	}
	w.instance, err = w.db.Postgres(ctx, agenttest.PostgresOptions{})
	return err
}

// switchElsewhere lets the load's processor do what a packet of the database host
// costs behind that host's own interface: the switch, and the client host's network
// stack. Otherwise the sender would do it all (veth), which no real host does.
func (w *world) switchElsewhere() error {
	mask := fmt.Sprintf("%x", 1<<loadCore)
	return w.lab.OnSwitch(func() error {
		return os.WriteFile("/sys/class/net/p-"+w.db.Name+"/queues/rx-0/rps_cpus", []byte(mask), 0o644)
	})
}

// startLoad divides n sessions among the load processes.
func (w *world) startLoad(ctx context.Context, transport string, n int) (*loads, error) {
	l := new(loads)
	for i := range processes {
		first, end := n*i/processes, n*(i+1)/processes
		args := []string{verbLoad, fmt.Sprintf("%v:%d", w.db.Addr4, portHeartbeat), transport,
			strconv.Itoa(first), strconv.Itoa(end - first), w.keyFile}
		if err := l.add(w.client.Command(ctx, w.program, args...)); err != nil {
			l.stop()
			return nil, err
		}
	}
	return l, nil
}

// logTail is the end of what the agent has written.
func (w *world) logTail() string {
	if w.agent == nil {
		return ""
	}
	text, _ := w.agent.Log()
	return text[max(0, len(text)-2000):]
}

func (w *world) close() error { return w.lab.Close() }
