// SPDX-License-Identifier: Apache-2.0

// Package child lets a benchmark start itself again on a host of a lab: as a
// process of its own, with descriptors of its own, that obeys orders, one line
// each, and answers each with a line.
package child

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Role is what a child process does.
type Role interface {
	// Obey carries out an order and returns the answer, without a line end. An
	// error ends the process.
	Obey(order string, n int) (answer string, err error)
}

// Serve plays a role until its input ends.
func Serve(role Role, in io.Reader, out io.Writer) error {
	for {
		var order string
		var n int
		if _, err := fmt.Fscan(in, &order, &n); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := role.Obey(order, n)
		if err != nil {
			return fmt.Errorf("%s %d: %w", order, n, err)
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
}

// Child is a running child process. It is not for concurrent use.
type Child struct {
	cmd *agenttest.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start starts a program on a host; its errors go to stderr. Call Stop.
func Start(ctx context.Context, h *agenttest.Host, program string, args ...string) (*Child, error) {
	c := &Child{cmd: h.Command(ctx, program, args...)}
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

// Send gives an order and does not wait for the answer.
func (c *Child) Send(order string, n int) error {
	_, err := fmt.Fprintln(c.in, order, n)
	return err
}

// Receive waits for the answer to the oldest order without one.
func (c *Child) Receive() (string, error) {
	answer, err := c.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("child process: %w", err)
	}
	return strings.TrimSpace(answer), nil
}

// AwaitOK waits until each of the children has answered ok.
func AwaitOK(children ...*Child) error {
	var errs []error
	for _, c := range children {
		answer, err := c.Receive()
		if err == nil && answer != "ok" {
			err = fmt.Errorf("child process answered %q", answer)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Stop ends the process, which closes all that it holds.
func (c *Child) Stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
