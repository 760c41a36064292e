// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// scratchCluster is a PostgreSQL instance of one test: trust for everybody, on
// all loopback addresses and a Unix socket.
type scratchCluster struct {
	t        *testing.T
	dir, bin string
	port     int
	user     *syscall.Credential
}

// scratchUser returns whom to run PostgreSQL as: it refuses root.
func scratchUser(t *testing.T) *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	ids := [2]uint32{}
	for i, flag := range []string{"-u", "-g"} {
		out, err := exec.Command("id", flag, "postgres").Output()
		if err != nil {
			agenttest.Skip(t, "a user postgres, needed when run as root")
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = uint32(n)
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1]}
}

func scratchBin(t *testing.T) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		agenttest.Skip(t, "PostgreSQL's initdb")
	}
	return filepath.Dir(path)
}

// scratchStart makes and starts a cluster; it is gone at the end of the test.
func scratchStart(t *testing.T, settings ...string) *scratchCluster {
	t.Helper()
	return scratchStartIn(t, scratchBin(t), settings...)
}

// scratchStartIn is scratchStart with the programs of a directory.
func scratchStartIn(t *testing.T, bin string, settings ...string) *scratchCluster {
	t.Helper()
	dir, err := os.MkdirTemp(agenttest.ScratchDir(), "watchdog-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &scratchCluster{t: t, dir: dir, bin: bin, user: scratchUser(t), port: int(agenttest.FreePort(t))}
	if c.user != nil {
		if err := os.Chown(dir, int(c.user.Uid), int(c.user.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	if c.user == nil {
		c.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--no-instructions", "-E", "UTF8", "--locale=C")
	} else if err := agenttest.MakeDataDir(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	conf := append([]string{
		"listen_addresses = '0.0.0.0,::1'", "port = " + strconv.Itoa(c.port),
		"unix_socket_directories = '" + dir + "'", "fsync = off", "logging_collector = off",
		"max_connections = 40", "superuser_reserved_connections = 2", "shared_buffers = 16MB",
	}, settings...)
	scratchAppend(t, filepath.Join(data, "postgresql.conf"), strings.Join(conf, "\n")+"\n")
	scratchAppend(t, filepath.Join(data, "pg_hba.conf"), "host all all all trust\nhost replication all all trust\n")
	c.run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "start")
	t.Cleanup(func() { c.run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop") })
	return c
}

func scratchAppend(t *testing.T, path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func (c *scratchCluster) run(name string, args ...string) {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	if c.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	}
	// A file, not a pipe: the postmaster inherits it and would keep a pipe open.
	out, err := os.Create(filepath.Join(c.dir, name+".out"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		c.t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func (c *scratchCluster) log() string {
	text, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func (c *scratchCluster) dial(ctx context.Context, dsn, from string) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	if from != "" {
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		config.DialFunc = d.DialContext
	}
	return pgconn.ConnectConfig(ctx, config)
}

// local connects through the Unix socket.
func (c *scratchCluster) local(ctx context.Context, user string) (*pgconn.PgConn, error) {
	return c.dial(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres application_name=pgwatchdog", c.dir, c.port, user), "")
}

// mustAdmin returns a superuser's connection through the Unix socket.
func (c *scratchCluster) mustAdmin() *scratchSession {
	c.t.Helper()
	conn, err := c.local(c.t.Context(), "postgres")
	if err != nil {
		c.t.Fatal(err)
	}
	return c.session(conn)
}

// mustClient connects over TCP from a loopback address, as a client host would.
func (c *scratchCluster) mustClient(from, user string) *scratchSession {
	c.t.Helper()
	conn, err := c.dial(c.t.Context(), c.dsn(from, user), from)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.session(conn)
}

func (c *scratchCluster) dsn(from, user string) string {
	host := "127.0.0.1"
	if strings.Contains(from, ":") {
		host = "::1"
	}
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", host, c.port, user)
}

// scratchSession is a client's session.
type scratchSession struct {
	*pgconn.PgConn
	t *testing.T
}

func (c *scratchCluster) session(conn *pgconn.PgConn) *scratchSession {
	// The socket alone: a statement may still be running in the background.
	socket := conn.Conn()
	c.t.Cleanup(func() { _ = socket.Close() })
	return &scratchSession{conn, c.t}
}

func (s *scratchSession) mustExec(sql string) {
	s.t.Helper()
	if _, err := s.Exec(s.t.Context(), sql).ReadAll(); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// mustValue returns the first column of the first row.
func (s *scratchSession) mustValue(sql string) string {
	s.t.Helper()
	results, err := s.Exec(s.t.Context(), sql).ReadAll()
	if err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

// background runs a statement that is not expected to end by itself.
func (s *scratchSession) background(sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := s.Exec(context.Background(), sql).ReadAll()
		done <- err
	}()
	return done
}

// scratchState returns pg_stat_activity's state and wait event of a session.
func (s *scratchSession) scratchState(pid uint32) string {
	return s.mustValue(fmt.Sprintf("SELECT concat_ws(' ', state, wait_event_type) FROM pg_stat_activity WHERE pid = %d", pid))
}

// alive reports whether the session still answers.
func (s *scratchSession) alive() bool {
	_, err := s.Exec(context.Background(), "SELECT 1").ReadAll()
	return err == nil
}

// scratchEventually polls for a fact.
func scratchEventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !fact() {
		if time.Now().After(limit) {
			t.Fatalf("never came true: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// scratchEnded reports whether the error is that of a terminated session.
func scratchEnded(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "57P01" || err != nil && !ok
}

// scratchFreeze stops a process until the end of the test.
func scratchFreeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
}
