// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// rightsEnv set to "none" has the tests use Watchers in processes of their own that
// run as nobody.
const rightsEnv = "CM_TEST_RIGHTS"

func withoutRights() bool { return os.Getenv(rightsEnv) == "none" }

// Without any right the tests of the Watcher pass as well: the carrier counter does
// it, or rtnetlink, and the log says so once.
func TestWithoutRights(t *testing.T) {
	if !vm.Inside() {
		t.Skip("a right makes a difference where BPF works: see TestInVirtualMachine")
	}
	agenttest.RunAgain(t, "^Test(Sources|LinkEvents|RouteEvents|StackedDevices|WatchTellsOnce|ZoneComesAndGoes)$", rightsEnv+"=none")
}

// child is a Watcher in a process that runs as nobody; see runChild.
type child struct {
	cmd    *agenttest.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
	log    bytes.Buffer // to be read after its end
	hello  report
}

func (c *child) Watch(peer netip.Addr)   { fmt.Fprintln(c.stdin, "watch", peer) }
func (c *child) Unwatch(peer netip.Addr) { fmt.Fprintln(c.stdin, "unwatch", peer) }
func (c *child) Source() Source          { return c.hello.Source }

func (c *child) Missing() (missing []Missing) {
	for _, s := range c.hello.Missing {
		missing = append(missing, Missing{Source: s})
	}
	return missing
}

// startWithoutRights starts one. Ending it wants the log to be right, too.
func (n *node) startWithoutRights(t testing.TB, cfg Config) (stop func()) {
	t.Helper()
	c := n.mustChild(t, cfg)
	n.links = c
	read := make(chan struct{})
	go func() {
		defer close(read)
		for r, ok := c.next(); ok; r, ok = c.next() {
			r.record(n.recorder)
		}
	}()
	return func() {
		_ = c.stdin.Close()
		select {
		case <-read:
		case <-time.After(limit):
			t.Error("the process does not end")
			_ = c.cmd.Cancel()
		}
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("the process: %v", err)
		}
		t.Log(strings.TrimSpace(c.log.String()))
		c.mustHaveAnnounced(t, cfg)
	}
}

// mustChild returns when the Watcher is there.
func (n *node) mustChild(t testing.TB, cfg Config) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(childConfig{Without: cfg.Without, All: cfg.All})
	if err != nil {
		t.Fatal(err)
	}
	// It is ended by a clean-up, which comes after the end of the test's context.
	c := &child{cmd: n.host.Command(context.WithoutCancel(t.Context()), self)}
	c.cmd.User, c.cmd.Stderr = "nobody", &c.log
	c.cmd.Env = append(c.cmd.Environ(), childEnv+"="+string(text))
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewScanner(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ok bool
	if c.hello, ok = c.next(); !ok {
		t.Fatalf("no Watcher: %v: %s", c.cmd.Wait(), c.log.String())
	}
	return c
}

// next reads a line; ok is false at the end.
func (c *child) next() (r report, ok bool) {
	return r, c.stdout.Scan() && json.Unmarshal(c.stdout.Bytes(), &r) == nil
}

// mustHaveAnnounced wants each line about the choice exactly once.
func (c *child) mustHaveAnnounced(t testing.TB, cfg Config) {
	t.Helper()
	want := []string{`"links are watched" source=` + c.Source().String(), `"links are watched"`}
	for _, s := range []Source{Fentry, Kprobe} {
		if !slices.Contains(cfg.Without, s) {
			want = append(want, ` is missing" source=`+s.String()+` err="missing CAP_BPF and CAP_PERFMON" hint="give `)
		}
	}
	for _, line := range want {
		if got := strings.Count(c.log.String(), line); got != 1 {
			t.Errorf("%d lines with %s, want one", got, line)
		}
	}
}
