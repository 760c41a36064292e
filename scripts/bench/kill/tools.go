// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// tool is one way to kill, and its times.
type tool struct {
	name string
	// kill returns how long it took to destroy all that was found, and until all
	// was done.
	kill  func(context.Context) (onePass, took time.Duration, err error)
	times *[]time.Duration
}

// looks is how often to find at most, as the terminator does.
const looks = 5

// killOurs does what the agent does.
func (w *world) killOurs(ctx context.Context) (onePass, took time.Duration, err error) {
	var c *sockdiag.Conn
	var dialled time.Duration
	err = w.db.Do(func() (err error) {
		if err := agenttest.GuardHostNamespace(); err != nil {
			return err
		}
		begin := time.Now()
		c, err = sockdiag.Dial()
		dialled = time.Since(begin)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	begin := time.Now()
	onePass, err = killPeer(ctx, c, w.peer.Addr4, begin)
	return dialled + onePass, dialled + time.Since(begin), err
}

// killPeer returns when the last socket was destroyed, as of begin.
func killPeer(ctx context.Context, c *sockdiag.Conn, peer netip.Addr, begin time.Time) (took time.Duration, err error) {
	f, err := sockdiag.PeerFilter(peer)
	if err != nil {
		return 0, err
	}
	f.LocalPorts, f.States = []sockdiag.PortRange{sockdiag.Port(port)}, sockdiag.Killable
	f.Info = true // the agent judges each socket by it
	for range looks {
		found, err := c.Find(ctx, f)
		if err != nil || len(found) == 0 {
			return took, err
		}
		outcomes, err := c.Destroy(ctx, found)
		if err != nil {
			return 0, err
		}
		took = time.Since(begin)
		for i, o := range outcomes {
			if o.Err != nil {
				return 0, fmt.Errorf("%v: %w", found[i], o.Err)
			}
		}
	}
	return took, nil
}

// killSS runs ss -K with the same filter and its output thrown away.
func (w *world) killSS(ctx context.Context) (onePass, took time.Duration, err error) {
	cmd := w.db.Command(ctx, "ss", "-K", "-H", "-n", "-t", "state", "established",
		"dst", w.peer.Addr4.String(), "sport", "=", fmt.Sprintf(":%d", port))
	begin := time.Now()
	err = cmd.Run()
	took = time.Since(begin)
	return took, took, err
}
