// SPDX-License-Identifier: Apache-2.0

package libpq

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// terminal is a psql that believes it is talking to a person.
type terminal struct {
	*testing.T
	in io.WriteCloser

	mu   sync.Mutex // guards the following
	text strings.Builder
}

// Write keeps what psql writes.
func (t *terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

func (t *terminal) wrote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// await waits until psql has written a text, and forgets all up to it.
func (t *terminal) await(text string) {
	t.Helper()
	agenttest.Eventually(t, generous, "psql writes "+text, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		_, rest, found := strings.Cut(t.text.String(), text)
		if found {
			t.text.Reset()
			t.text.WriteString(rest)
		}
		return found
	})
}

func (t *terminal) enter(text string) {
	t.Helper()
	if _, err := io.WriteString(t.in, text+"\n"); err != nil {
		t.Fatal(err)
	}
}

// openTerminal runs psql on a pseudo-terminal, by script(1).
func (w *world) openTerminal() *terminal {
	w.Helper()
	agenttest.NeedTool(w, "script")
	t := &terminal{T: w.T}
	cmd := w.command(context.Background(), append(w.env("psql-interactive"), "TERM=dumb", "SHELL=/bin/sh"),
		"script", "-q", "-e", "-c", "psql -X -A -t --pset pager=off --no-readline", "/dev/null")
	cmd.Stdout, cmd.Stderr = t, t
	var err error
	t.in, err = cmd.StdinPipe()
	w.must(err)
	w.must(cmd.Start())
	w.Cleanup(func() {
		_ = t.in.Close()
		_ = cmd.Cancel()
		_ = cmd.Wait()
		if w.Failed() {
			w.Logf("psql wrote:\n%s", t.wrote())
		}
	})
	t.await("postgres=#")
	return t
}

// An interactive psql whose server died silently reconnects by itself, to the
// promoted standby.
func TestInteractivePsql(t *testing.T) {
	w := newWorld(t, nil)
	w.startConmgr()
	psql := w.openTerminal()
	psql.enter("SELECT host(inet_server_addr());")
	psql.await(w.db1.Addr4.String())
	psql.await("postgres=#")

	psql.enter("SELECT pg_sleep(600);")
	agenttest.Eventually(t, generous, "psql's statement runs", func() bool {
		return len(agenttest.MustQuery(t, w.primary, "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()")) == 1
	})
	agenttest.MustFault(t, w.db1.Cut)
	_, err := w.standby.Promote(t.Context())
	w.must(err)
	psql.await("server closed the connection unexpectedly")
	lost := clock.Now()
	silence := lost.Sub(w.lastHeartbeat(w.db1))
	psql.await("Attempting reset: Succeeded.")
	psql.await("postgres=#")
	again := clock.Now()
	psql.enter("SELECT host(inet_server_addr());")
	psql.await(w.db2.Addr4.String())
	t.Logf("psql: error after %.1f ms of silence, connected again %.1f ms later",
		silence.Seconds()*1000, again.Sub(lost).Seconds()*1000)
	if took := again.Sub(lost); took > time.Second {
		t.Errorf("psql was connected again after %v: expected at most 1s", took)
	}
}
