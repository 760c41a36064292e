// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// obeyer is a role of a child process: it answers one line to each order.
type obeyer interface {
	obey(order string, n int) (answer string, err error)
}

// runChild plays the role that the arguments name, until its input ends.
func runChild(args []string, in io.Reader, out io.Writer) error {
	role, err := newRole(args)
	if err != nil {
		return err
	}
	for {
		var order string
		var n int
		if _, err := fmt.Fscan(in, &order, &n); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := role.obey(order, n)
		if err != nil {
			return fmt.Errorf("%s %d: %w", order, n, err)
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
}

func newRole(args []string) (obeyer, error) {
	if args[0] == verbHold {
		return &holding{addr: args[1]}, nil
	}
	addr, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return nil, err
	}
	peer, err := netip.ParseAddr(args[2])
	if err != nil {
		return nil, err
	}
	return newServing(addr, peer)
}

// isChild reports whether the program was started by itself.
func isChild(args []string) bool {
	return len(args) == 2 && args[0] == verbHold || len(args) == 3 && args[0] == verbServe
}

// child is this program on a host of the lab, in a role.
type child struct {
	cmd *agenttest.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(ctx context.Context, h *agenttest.Host, program string, args ...string) (*child, error) {
	c := &child{cmd: h.Command(ctx, program, args...)}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, c.cmd.Start()
}

func (c *child) send(order string, n int) error {
	_, err := fmt.Fprintln(c.in, order, n)
	return err
}

func (c *child) receive() (string, error) {
	answer, err := c.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("child process: %w", err)
	}
	return strings.TrimSpace(answer), nil
}

// stop ends the process, which closes all that it holds.
func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
