// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
)

// Ports of the world.
const (
	portConsole   = 27546
	portPrimary   = 27551
	portStandby   = 27552
	portHeartbeat = 27545
	portInstance  = 5432
)

// perLoad is how many applications one process holds at most: none may have more
// descriptors than the machine allows.
const perLoad = 3000

// world is a client host with conmgr and load processes, and two database hosts,
// each with a real instance at its first address and played backends on the same
// port of a second one, which is the one that conmgr knows.
type world struct {
	client  *agenttest.Host
	db      [2]*agenttest.Host
	cm      *agenttest.Conmgr
	frames  *agenttest.Capture
	agents  []*agenttest.Process // of the database hosts
	backend [2]*child.Child
	loads   []*child.Child
	program string
	lab     *agenttest.Lab
}

func newWorld(ctx context.Context, n int) (*world, error) {
	lab, err := agenttest.New(ctx, "client", "db1", "db2")
	if err != nil {
		return nil, err
	}
	w := &world{lab: lab, client: lab.Host("client"), db: [2]*agenttest.Host{lab.Host("db1"), lab.Host("db2")}}
	if err := w.start(ctx, n); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) start(ctx context.Context, n int) (err error) {
	if w.program, err = os.Executable(); err != nil {
		return err
	}
	if w.frames, err = w.client.Capture(portHeartbeat); err != nil {
		return err
	}
	// Each round leaves thousands of ports in TIME-WAIT.
	err = w.client.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("1024 65535"), 0o644)
	})
	if err != nil {
		return err
	}
	if err := w.startInstances(ctx); err != nil {
		return err
	}
	for i, h := range w.db {
		if err := w.alias(ctx, h); err != nil {
			return err
		}
		at := netip.AddrPortFrom(second(h), portInstance)
		if w.backend[i], err = child.Start(ctx, h, w.program, verbServe, at.String()); err != nil {
			return err
		}
	}
	if err := w.startConmgr(ctx); err != nil {
		return err
	}
	for len(w.loads)*perLoad < n {
		c, err := child.Start(ctx, w.client, w.program, verbLoad)
		if err != nil {
			return err
		}
		w.loads = append(w.loads, c)
	}
	return w.awaitMonitored(ctx)
}

// startInstances starts a primary and its standby, and an agent beside each.
func (w *world) startInstances(ctx context.Context) error {
	var primary *agenttest.Postgres
	for _, h := range w.db {
		p, err := h.Postgres(ctx, agenttest.PostgresOptions{Listen: "127.0.0.1, " + h.Addr4.String(), StreamFrom: primary})
		if err != nil {
			return err
		}
		agent, err := p.StartWatchdog(ctx, agenttest.WatchdogOptions{Conf: map[string]string{"watchdog.listen_addresses": "*"}})
		if err != nil {
			return err
		}
		w.agents = append(w.agents, agent)
		primary = p
	}
	return nil
}

// second is the address of a host's played backends.
func second(h *agenttest.Host) netip.Addr {
	a := h.Addr4.As4()
	a[3] += 100
	return netip.AddrFrom4(a)
}

// alias gives a host its second address, known to the client for good as the first
// one is.
func (w *world) alias(ctx context.Context, h *agenttest.Host) error {
	var mac string
	err := h.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = eth0.HardwareAddr.String()
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range []*agenttest.Cmd{
		h.Command(ctx, "ip", "address", "add", second(h).String()+"/24", "dev", "eth0"),
		w.client.Command(ctx, "ip", "neighbour", "add", second(h).String(), "lladdr", mac, "dev", "eth0", "nud", "permanent"),
	} {
		if _, err := c.Output(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) startConmgr(ctx context.Context) (err error) {
	params := map[string]string{
		"heartbeat_interval":         fmt.Sprintf("%dms", interval.Milliseconds()),
		"heartbeat_timeout":          fmt.Sprintf("%dms", timeout.Milliseconds()),
		"heartbeat_connect_interval": "200ms",
		"log_min_messages":           "INFO",
		"proxy_listen":               fmt.Sprintf("'%d:primary, %d:standby'", portPrimary, portStandby),
	}
	for i, h := range w.db {
		params[fmt.Sprintf("backend_hostaddr%d", i)] = fmt.Sprintf("'%v'", second(h))
		params[fmt.Sprintf("backend_port%d", i)] = fmt.Sprint(portInstance)
	}
	if w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{Params: params}); err != nil {
		return err
	}
	return w.cm.Start(ctx)
}

// awaitMonitored waits until conmgr has heartbeats with both instances.
func (w *world) awaitMonitored(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := w.cm.Ctl(ctx, "status", "-i", "instance", "--json")
		if err == nil && strings.Count(text, `"monitored"`) == len(w.db) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for monitored instances: %w: %s", errors.Join(err, ctx.Err()), text)
		case <-tick.C:
		}
	}
}

// vanish takes the first database host away: its packets, and what its agent would
// take of processors that are not the client host's.
func (w *world) vanish(ctx context.Context) error {
	if _, err := w.db[0].Cut(ctx); err != nil {
		return err
	}
	_, err := w.agents[0].Pause()
	return err
}

// appear undoes vanish.
func (w *world) appear(ctx context.Context) error {
	if _, err := w.agents[0].Resume(); err != nil {
		return err
	}
	_, err := w.db[0].Heal(ctx)
	return err
}

// open divides n applications of a group among the load processes.
func (w *world) open(g group, n int) error {
	for i, c := range w.loads {
		first, end := n*i/len(w.loads), n*(i+1)/len(w.loads)
		if err := c.Send(string(g), end-first); err != nil {
			return err
		}
	}
	return child.AwaitOK(w.loads...)
}

// logTail is the end of what conmgr has written.
func (w *world) logTail() string {
	text, _ := w.cm.Process.Log()
	return text[max(0, len(text)-2000):]
}

func (w *world) close() error {
	for _, c := range append(w.loads, w.backend[:]...) {
		if c != nil {
			c.Stop()
		}
	}
	if w.frames != nil {
		_ = w.frames.Close()
	}
	return w.lab.Close()
}
