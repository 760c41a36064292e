// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Prove finds out whether this process can destroy sockets, by destroying one of
// its own: the client's end of a loopback connection. The kernel looks at the
// right and at its own ability only when it has found the socket. The error is
// nil, ErrNotPermitted or ErrNotSupported, or about something that keeps the
// question from being asked. It must be called in the namespace of the Conn.
func (c *Conn) Prove(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("prove the right to destroy sockets: %w", err)
	}
	defer l.Close()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", l.Addr().String())
	if err != nil {
		return fmt.Errorf("prove the right to destroy sockets: %w", err)
	}
	defer conn.Close()
	own := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	found, err := c.Find(ctx, Filter{
		Peers:      []netip.Prefix{netip.PrefixFrom(own.Addr().Unmap(), 32)},
		LocalPorts: []PortRange{Port(own.Port())},
		States:     StatesOf(Established),
	})
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("prove the right to destroy sockets: %d sockets at %v: expected one", len(found), own)
	}
	outcomes, err := c.Destroy(ctx, found)
	if err != nil {
		return err
	}
	if outcomes[0].Result == Gone {
		return errors.New("prove the right to destroy sockets: the socket was gone")
	}
	return outcomes[0].Err
}
