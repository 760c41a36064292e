// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// crowd are applications in the states that differ for whoever ends them.
type crowd struct {
	w       *world
	waiting []*app // in a statement, or for a notification: their end is noticed
	idle    []*app // to be asked whether they still live
}

// crowd opens applications on an instance: a blocked read, one idle in a
// transaction, one busy, one plain idle, one that only listens.
func (w *world) crowd(open func() *app) *crowd {
	w.Helper()
	c := &crowd{w: w}
	reader, busy, listener := open(), open(), open()
	reader.begin("SELECT pg_sleep(3600)")
	busy.begin("DO $$ BEGIN LOOP PERFORM pg_sleep(0.001); END LOOP; END $$")
	listener.idle()
	inTransaction, idle := open(), open()
	inTransaction.exec("BEGIN")
	inTransaction.exec("SELECT 1")
	c.waiting, c.idle = []*app{reader, busy, listener}, []*app{inTransaction, idle}
	return c
}

// through opens connections through a pass-through port of the client's conmgr.
func (w *world) through(port int) func() *app { return func() *app { return w.open(port) } }

// directly opens connections from a host straight to an instance.
func (w *world) directly(from *agenttest.Host, p *agenttest.Postgres) func() *app {
	return func() *app { return w.openDirect(from, p) }
}

// size is how many there are.
func (c *crowd) size() int { return len(c.waiting) + len(c.idle) }

// disturbed reports whether any that waits has ended.
func (c *crowd) disturbed() bool {
	for _, a := range c.waiting {
		if a.hasEnded() {
			return true
		}
	}
	return false
}

// expectUntouched fails the row when any has ended within the time, or does not
// answer after it.
func (c *crowd) expectUntouched(what string, during time.Duration) {
	c.w.Helper()
	c.w.expectNever(what+": an application was disturbed", during, c.disturbed)
	for _, a := range c.idle {
		if got := a.value("SELECT pg_backend_pid()::text"); got != fmt.Sprint(a.pid) {
			c.w.failf("%s: another backend answers: %s for %d", what, got, a.pid)
		}
	}
}

// expectErrors waits until all have got an error, and returns when the last one
// got it.
func (c *crowd) expectErrors(what string) (last appEnd) {
	c.w.Helper()
	for _, a := range c.waiting {
		end := a.ended(what)
		if end.err == nil {
			c.w.failf("%s: ended without an error", what)
		}
		if end.at.After(last.at) {
			last = end
		}
	}
	for _, a := range c.idle {
		c.w.expect(what+": an idle application gets its error", func() bool {
			_, err := a.conn.Exec(c.w.Context(), "SELECT 1")
			return err != nil
		})
	}
	return last
}

func (c *crowd) all() []*app { return slices.Concat(c.waiting, c.idle) }

// pids are the backends of the crowd.
func (c *crowd) pids() []uint32 {
	var pids []uint32
	for _, a := range c.all() {
		pids = append(pids, a.pid)
	}
	return pids
}

// living counts those of the given backends that another session still sees.
func (w *world) living(p *agenttest.Postgres, pids []uint32) int {
	w.Helper()
	n := 0
	for _, pid := range agenttest.MustQuery(w, p, "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'client backend'") {
		for _, want := range pids {
			if pid == fmt.Sprint(want) {
				n++
			}
		}
	}
	return n
}

// watchdogEvents is the text of the events that the agent beside an instance
// has kept, a JSON object per line.
func (w *world) watchdogEvents(p *agenttest.Postgres) string {
	text, err := os.ReadFile(filepath.Join(w.lab.Dir, p.Host.Name, p.Name, "watchdog", "events.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		w.must(err)
	}
	return string(text)
}

// logged reports whether a process has written a text.
func (w *world) logged(p *agenttest.Process, text string) bool {
	log, err := p.Log()
	w.must(err)
	return strings.Contains(log, text)
}

// pause stops a single process, such as a backend, until the test ends.
func (w *world) pause(pid uint32) {
	w.Helper()
	w.must(syscall.Kill(int(pid), syscall.SIGSTOP))
	w.Cleanup(func() { w.resume(pid) })
}

// resume ends pause. The process may be gone.
func (w *world) resume(pid uint32) { _ = syscall.Kill(int(pid), syscall.SIGCONT) }

// newConmgr makes a conmgr's directory for the world's instances.
func (w *world) newConmgr(h *agenttest.Host, change map[string]string) *agenttest.Conmgr {
	w.Helper()
	cm, err := h.NewConmgr(agenttest.ConmgrOptions{Params: w.conmgrParams(h, change)})
	w.must(err)
	return cm
}

// exitCode is that of a command.
func exitCode(w *world, err error) int {
	if err == nil {
		return 0
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		w.must(err)
	}
	return exit.ExitCode()
}
