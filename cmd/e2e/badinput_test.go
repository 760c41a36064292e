// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// badWorld is a running system with a healthy session of each kind beside which
// something bad happens.
type badWorld struct {
	*world
	app     *app
	watcher *bound
}

func newBadWorld(t *testing.T) *badWorld {
	t.Helper()
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := fast()
	calm(&s)
	w := &badWorld{world: newWorld(t, s)}
	w.app, w.watcher = w.open(portPrimary), w.target("primary")
	return w
}

// check sees to it that nobody beside the case noticed anything.
func (w *badWorld) check() {
	w.Helper()
	if _, err := w.app.conn.Exec(w.Context(), "SELECT"); err != nil {
		w.Errorf("the healthy session: %v", err)
	}
	if w.watcher.hasEnded() {
		w.Error("the healthy console session was ended")
	}
	for _, p := range []*agenttest.Process{w.cm.Process, w.agent1, w.agent2} {
		if !p.Running() {
			w.Errorf("%s has ended", p.Name)
		}
	}
}

// conmgrFails runs a conmgr that must not start and returns what it said.
func (w *badWorld) conmgrFails(user, dir string, env ...string) string {
	w.Helper()
	path, err := w.lab.Binary(w.Context(), "conmgr")
	w.must(err)
	ctx, cancel := context.WithTimeout(w.Context(), generous)
	defer cancel()
	cmd := w.client.Command(ctx, path, "-D", dir)
	cmd.User, cmd.Dir, cmd.Env = user, "/", env
	out, err := cmd.CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 1 {
		w.Errorf("conmgr -D %s: %v: expected exit code 1\n%s", dir, err, out)
	}
	return string(out)
}

// mustSay checks that a text has one line with all the words.
func (w *badWorld) mustSay(text string, words ...string) {
	w.Helper()
	n := 0
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			n++
		}
	}
	if n != 1 {
		w.Errorf("%d lines with %q: expected one in\n%s", n, words, text)
		return
	}
	w.Logf("said: %s", strings.TrimSpace(text))
}

// lines returns the lines of a process's log that have all the words.
func (w *world) lines(p *agenttest.Process, words ...string) (found []string) {
	w.Helper()
	log, err := p.Log()
	w.must(err)
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// tooOften reports whether any of these lines came within a minute of the one before;
// they begin with their time.
func (w *world) tooOften(lines []string) bool {
	w.Helper()
	var last time.Time
	for _, line := range lines {
		const stamp = "2006-01-02 15:04:05.000"
		at, err := time.Parse(stamp, line[:min(len(line), len(stamp))])
		w.must(err)
		if at.Sub(last) < 59*time.Second {
			return true
		}
		last = at
	}
	return false
}

// aWhile is long enough for several more attempts at whatever went wrong.
const aWhile = 1500 * time.Millisecond

// eventuallySays waits for the one line in a process's log.
func (w *badWorld) eventuallySays(p *agenttest.Process, words ...string) {
	w.Helper()
	agenttest.Eventually(w, generous, fmt.Sprintf("a line with %q in the log of %s", words, p.Name), func() bool { return len(w.lines(p, words...)) > 0 })
	agenttest.Never(w, aWhile, fmt.Sprintf("%q a second time in the log of %s", words, p.Name), func() bool { return len(w.lines(p, words...)) > 1 })
	w.Logf("said: %s", w.lines(p, words...)[0])
}

// What keeps conmgr from starting.
func TestBadInputStart(t *testing.T) {
	w := newBadWorld(t)
	params := map[string]string{"backend_hostaddr0": "'" + w.db1.Addr4.String() + "'", "proxy_listen": "''"}

	second, err := w.client.NewConmgr(agenttest.ConmgrOptions{Name: "second", Params: params})
	w.must(err)
	w.mustSay(w.conmgrFails("nobody", second.Dir), "27546", "in use")

	w.mustSay(w.conmgrFails("nobody", w.cm.Dir), w.cm.Dir, fmt.Sprint(w.cm.Process.Pid()))
	out, err := w.cm.Ctl(w.Context(), "start", "-W")
	if err == nil {
		w.Errorf("cm_ctl start beside a running conmgr did not fail")
	}
	w.mustSay(out, "running", fmt.Sprint(w.cm.Process.Pid()))

	missing := filepath.Join(w.lab.Dir, "client", "missing")
	w.mustSay(w.conmgrFails("nobody", missing), missing, "no such file or directory")
	file := filepath.Join(w.cm.Dir, "conmgr.conf")
	w.mustSay(w.conmgrFails("nobody", file), file, "directory")

	foreign, err := w.client.NewConmgr(agenttest.ConmgrOptions{Name: "foreign", User: "postgres", Params: params})
	w.must(err)
	w.mustSay(w.conmgrFails("nobody", foreign.Dir), foreign.Dir)
	w.must(os.Chmod(foreign.Dir, 0o777))
	w.mustSay(w.conmgrFails("nobody", foreign.Dir), foreign.Dir)

	w.mustSay(w.conmgrFails("nobody", ""), "-D", "CMDATA")
	w.mustSay(w.conmgrFails("", second.Dir), "root")

	empty, err := w.client.NewConmgr(agenttest.ConmgrOptions{Name: "empty"})
	w.must(err)
	w.mustSay(w.conmgrFails("nobody", empty.Dir), "conmgr.conf", "backend_host0")
	for _, tt := range []struct{ name, value, says string }{
		{"heartbeat_timeout", "0", "heartbeat_timeout"},
		{"heartbeat_timeout", "'soon'", "heartbeat_timeout"},
		{"heartbeat_time", "1", "heartbeat_time"},
		{"port", "70000", "65535"},
		{"log_min_messages", "LOUD", "WARNING"},
	} {
		w.must(empty.Configure(nil, map[string]string{"backend_hostaddr0": "'192.0.2.1'", tt.name: tt.value}))
		w.mustSay(w.conmgrFails("nobody", empty.Dir), "conmgr.conf:2", tt.says)
	}
	w.check()
}

// What clients may send to the application port.
func TestBadInputStartup(t *testing.T) {
	w := newBadWorld(t)
	dial := func(send string) net.Conn {
		conn, err := w.client.Dial(w.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", portConsole))
		w.must(err)
		w.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(send)); err != nil {
			w.must(err)
		}
		return conn
	}
	answer := func(conn net.Conn) string {
		w.must(conn.SetReadDeadline(time.Now().Add(generous)))
		var all []byte
		for {
			b := make([]byte, 4096)
			n, err := conn.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				if os.IsTimeout(err) {
					w.Error("the connection stays open")
				}
				return string(all)
			}
		}
	}
	for _, tt := range []struct{ name, send, want string }{
		{"garbage", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "invalid length of startup packet"},
		{"huge", "\x7f\xff\xff\xff\x00\x03\x00\x00", "invalid length of startup packet"},
		{"short", "\x00\x00\x00\x04", "invalid length of startup packet"},
		{"old protocol", "\x00\x00\x00\x08\x00\x02\x00\x00", "unsupported frontend protocol"},
		{"no user", "\x00\x00\x00\x09\x00\x03\x00\x00\x00", "user name"},
		{"direct TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""},
	} {
		if got := answer(dial(tt.send)); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			w.Errorf("%s: answer %q: expected %q", tt.name, got, tt.want)
		}
	}
	never := dial("\x00\x00\x10\x00\x00\x03\x00\x00user\x00")
	began := now()

	conn, err := w.console(w.client, func(*pgconn.Notification) {})
	w.must(err)
	defer closeSoon(conn)
	_, err = conn.Exec(w.Context(), "FLY TO THE MOON")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42601" || !strings.Contains(e.Hint, "SHOW HELP") {
		w.Errorf("unknown command: %v: expected 42601 and a hint at SHOW HELP", err)
	}
	_, err = conn.Exec(w.Context(), "TARGET moon")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "22023" || !strings.Contains(e.Message+e.Hint, "prefer-standby") {
		w.Errorf("unknown target: %v: expected 22023 and the values", err)
	}
	_, err = w.connectAs(w.Context(), "nobody_knows", w.client, "127.0.0.1", portConsole) // database postgres
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "28000" || !strings.Contains(e.Message, "nobody_knows") {
		w.Errorf("another database as an unknown role: %v: expected the instance's 28000", err)
	}
	w.check()
	answer(never)
	if took := now().Sub(began); took > 15*time.Second {
		w.Errorf("a startup packet that never ends was waited for %v: expected about 10 s", took)
	}
	w.eventuallySays(w.cm.Process, "startup")
	w.check()
}

// Frames of another version of the heartbeat protocol, both ways.
func TestBadInputVersion(t *testing.T) {
	w := newBadWorld(t)
	// A HELLO's first bytes: length, magic, version.
	hello := make([]byte, 2+144)
	copy(hello, []byte{0, 144, 0x43, 0x42, 99, 1})
	for range 3 {
		conn, err := w.client.Dial(w.Context(), "tcp", net.JoinHostPort(w.db1.Addr4.String(), fmt.Sprint(portHeartbeat)))
		w.must(err)
		_, err = conn.Write(hello)
		w.must(err)
		w.must(conn.SetReadDeadline(time.Now().Add(generous)))
		b := make([]byte, 128)
		n, err := conn.Read(b)
		if err != nil || n < 6 || b[5] != 5 {
			w.Errorf("answer % x, %v: expected a REFUSE", b[:n], err)
		}
		_ = conn.Close()
	}
	w.eventuallySays(w.agent1, "another version", w.client.Addr4.String())

	listener, err := w.db1.Listen(w.Context(), "tcp", "0.0.0.0:27600")
	w.must(err)
	served := make(chan struct{})
	w.Cleanup(func() { _ = listener.Close(); <-served })
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1024))
			_, _ = conn.Write(hello)
			_ = conn.Close()
		}
	}()
	other, err := w.client.NewConmgr(agenttest.ConmgrOptions{Name: "other", Params: map[string]string{
		"port": "27646", "backend_hostaddr0": "'" + w.db1.Addr4.String() + "'", "watchdog_port0": "27600",
		"heartbeat_interval": "100ms", "heartbeat_timeout": "300ms",
	}})
	w.must(err)
	w.must(other.Start(w.Context()))
	w.eventuallySays(other.Process, "ERROR", "another version", w.db1.Addr4.String())
	w.check()
}

// An instance that does not let the agent in, or in which it may do nothing.
func TestBadInputInstance(t *testing.T) {
	w := newBadWorld(t)
	hba := []string{
		"host all password 127.0.0.1/32 scram-sha-256",
		"host all rejected 127.0.0.1/32 reject",
		"host all all 127.0.0.1/32 trust",
	}
	p := agenttest.MustPostgres(w, w.db1, agenttest.PostgresOptions{Name: "strict", Port: 5433, HBA: hba, Conf: map[string]string{
		"password_encryption": "scram-sha-256",
	}})
	for _, role := range []string{"password", "rejected", "plain"} {
		w.must(p.CreateRole(w.Context(), role))
	}
	w.must(p.CreateRole(w.Context(), "blind", "pg_signal_backend"))
	w.must(p.CreateRole(w.Context(), "unable", "pg_read_all_stats"))
	w.must(p.Exec(w.Context(), "ALTER ROLE password PASSWORD 'secret'"))
	type badInstance struct {
		name, dsn string
		says      []string
		agent     *agenttest.Process
	}
	cases := []badInstance{
		{name: "nobody listens", dsn: "port=5434 user=postgres", says: []string{"5434", "refused"}},
		{name: "no password given", dsn: "port=5433 user=password", says: []string{"ERROR", "password", "dsn"}},
		{name: "wrong password", dsn: "port=5433 user=password password=wrongsecret", says: []string{"ERROR", "password", "28P01"}},
		{name: "rejected", dsn: "port=5433 user=rejected", says: []string{"ERROR", "pg_hba.conf", "28000"}},
		{name: "no such role", dsn: "port=5433 user=missing", says: []string{"ERROR", "missing", "28000"}},
		{name: "no such database", dsn: "port=5433 user=plain dbname=missing", says: []string{"ERROR", "missing", "3D000"}},
		{name: "may not see sessions", dsn: "port=5433 user=blind", says: []string{"ERROR", "pg_read_all_stats", "blind"}},
		{name: "may not end sessions", dsn: "port=5433 user=unable", says: []string{"ERROR", "pg_signal_backend", "unable"}},
	}
	for i := range cases {
		c := &cases[i]
		dsn := "host=127.0.0.1 connect_timeout=2 " + c.dsn
		if !strings.Contains(dsn, "dbname") {
			dsn += " dbname=postgres"
		}
		name := "agent-" + strings.ReplaceAll(c.name, " ", "-")
		var err error
		c.agent, err = w.db1.Start(agenttest.Spec{Name: name, Path: w.binary("pgwatchdog"), Dir: "/", Args: []string{
			"--dsn", dsn, "--state-dir", w.dir(name), "--set", fmt.Sprintf("watchdog.port=%d", 27601+i),
		}})
		w.must(err)
	}
	for _, c := range cases {
		agenttest.Eventually(w, generous, fmt.Sprintf("a line with %q of the agent: %s", c.says, c.name), func() bool {
			return len(w.lines(c.agent, c.says...)) > 0
		})
	}
	agenttest.Never(w, aWhile, "an agent repeats itself", func() bool {
		return slices.ContainsFunc(cases, func(c badInstance) bool { return w.tooOften(w.lines(c.agent, c.says...)) })
	})
	for _, c := range cases {
		w.Logf("%s: %s", c.name, w.lines(c.agent, c.says...)[0])
		if errs := w.lines(c.agent, "ERROR"); w.tooOften(errs) {
			w.Errorf("%s: %d errors: expected one a minute\n%s", c.name, len(errs), strings.Join(errs, "\n"))
		}
		if len(w.lines(c.agent, "wrongsecret")) > 0 {
			w.Errorf("%s: the log tells the password", c.name)
		}
		w.must(c.agent.Stop(w.Context()))
	}
	w.check()
}

func (w *world) binary(name string) string {
	w.Helper()
	path, err := w.lab.Binary(w.Context(), name)
	w.must(err)
	return path
}

func (w *world) dir(name string) string {
	w.Helper()
	dir, err := w.db1.Mkdir("", name)
	w.must(err)
	return dir
}
