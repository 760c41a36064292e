// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"net"
	"slices"
)

// console is that of a conmgr in the host list.
type console struct {
	dialer      *Dialer
	name        string // host:port of the list
	port        uint16
	remote      string // address to dial; empty for the mark of this host
	trusted     string // conmgr_user
	user        string // what the session is called
	application string
}

// open starts a session that is bound to the best instance for a target, and
// returns all that have the attribute.
func (c *console) open(ctx context.Context, target string) (*session, []Instance, error) {
	conn, err := c.reach(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("conmgr %s: %w", c.name, err)
	}
	s, list, err := openSession(ctx, conn, c.user, c.application, target)
	if err == nil && len(list) == 0 {
		s.close()
		err = ErrNoInstance
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask conmgr %s for %s: %w", c.name, target, err)
	}
	return s, list, nil
}

func (c *console) reach(ctx context.Context) (net.Conn, error) {
	if c.remote != "" {
		return c.dialer.dial(ctx, "tcp", c.remote)
	}
	return c.dialer.dialMark(ctx, c.port, c.trusted)
}

// bind opens a session that is bound to the one instance that is meant.
func (c *console) bind(ctx context.Context, target string, meant func(Instance) bool) (*session, Instance, error) {
	s, list, err := c.open(ctx, target)
	if err != nil {
		return nil, Instance{}, err
	}
	i := slices.IndexFunc(list, meant)
	switch {
	case i < 0:
		err = fmt.Errorf("conmgr %s does not offer the instance for %s any more", c.name, target)
	case i > 0: // the session is bound to the first
		if err = s.bindTo(ctx, target, list[i].Number); err != nil {
			err = fmt.Errorf("ask conmgr %s for instance %s: %w", c.name, list[i], err)
		}
	}
	if err != nil {
		s.close()
		return nil, Instance{}, err
	}
	return s, list[i], nil
}
