// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
)

// verbHold makes this program a client that holds connections to an address.
const verbHold = "hold"

// perHolder is how many connections one client process holds: none may have
// more descriptors than the machine allows.
const perHolder = 5000

// holding is what a client process has.
type holding struct {
	addr  string
	conns []net.Conn
}

// Obey opens n connections, or closes all when n is 0.
func (h *holding) Obey(order string, n int) (string, error) {
	switch order {
	case "open":
		d := net.Dialer{KeepAlive: -1, Timeout: 30 * time.Second}
		for range n {
			c, err := d.Dial("tcp", h.addr)
			if err != nil {
				return "", err
			}
			h.conns = append(h.conns, c)
		}
		return "ok", nil
	case "close":
		for _, c := range h.conns {
			// Without TIME_WAIT, which would use up the ports.
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return "", err
			}
			_ = c.Close() // the kernel may have reset it already
		}
		h.conns = nil
		return "ok", nil
	}
	return "", fmt.Errorf("unknown order %q", order)
}

// holders are the client processes of one host.
type holders []*child.Child

// open opens n connections from the host, with as many processes as needed.
func (hs *holders) open(ctx context.Context, h *agenttest.Host, program, addr string, n int) error {
	needed := (n + perHolder - 1) / perHolder
	for len(*hs) < needed {
		c, err := child.Start(ctx, h, program, verbHold, addr)
		if err != nil {
			return err
		}
		*hs = append(*hs, c)
	}
	for i, c := range (*hs)[:needed] {
		if err := c.Send("open", min(perHolder, n-i*perHolder)); err != nil {
			return err
		}
	}
	return child.AwaitOK((*hs)[:needed]...)
}

func (hs holders) close() error {
	for _, c := range hs {
		if err := c.Send("close", 0); err != nil {
			return err
		}
	}
	return child.AwaitOK(hs...)
}
