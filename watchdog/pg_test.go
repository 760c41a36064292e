// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// cluster is a throw-away PostgreSQL under a temporary directory, on a socket
// there and on a port of 127.0.0.1.
type cluster struct {
	t    *testing.T
	bin  string
	cred *syscall.Credential
	root string // of the socket and the log
	data string
	port uint16
}

// needPostgres skips honestly where there is no PostgreSQL to start.
func needPostgres(t *testing.T) (bin string, cred *syscall.Credential) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		needless(t, "no PostgreSQL in /usr/lib/postgresql")
	}
	if os.Geteuid() != 0 {
		needless(t, "needs root to run PostgreSQL as user postgres")
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		needless(t, "no user postgres")
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	slices.Sort(found)
	return found[len(found)-1], &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// needless skips, or fails where skips are not allowed.
func needless(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CM_TEST_STRICT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	bin, cred := needPostgres(t)
	root, err := os.MkdirTemp(agenttest.ScratchDir(), "wd")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, bin: bin, cred: cred, root: root, data: filepath.Join(root, "data"), port: agenttest.FreePort(t)}
	if err := os.Chown(root, int(cred.Uid), int(cred.Gid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.remove)
	return c
}

// mustPrimary makes and starts a new cluster with extra lines in postgresql.conf.
func mustPrimary(t *testing.T, lines ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	if err := agenttest.MakeDataDir(t.Context(), c.data); err != nil {
		t.Fatal(err)
	}
	c.configure(append([]string{"fsync = off", "max_connections = 20", "shared_buffers = 1MB"}, lines...)...)
	c.start()
	return c
}

// mustStandby makes and starts a streaming standby.
func (c *cluster) mustStandby() *cluster {
	c.t.Helper()
	s := newCluster(c.t)
	s.run("pg_basebackup", "-h", c.root, "-p", fmt.Sprint(c.port), "-U", "postgres", "-D", s.data, "-R", "-c", "fast")
	s.configure()
	s.start()
	return s
}

func (c *cluster) configure(lines ...string) {
	c.t.Helper()
	lines = append(lines, fmt.Sprintf("port = %d", c.port), "unix_socket_directories = '"+c.root+"'", "listen_addresses = '127.0.0.1'")
	f, err := os.OpenFile(filepath.Join(c.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("\n" + strings.Join(lines, "\n") + "\n"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	return cmd
}

func (c *cluster) run(program string, args ...string) {
	c.t.Helper()
	if out, err := c.command(program, args...).CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(c.root, "log"))
		c.t.Fatalf("%s: %v\n%s%s", program, err, out, log)
	}
}

func (c *cluster) start() {
	c.t.Helper()
	c.run("pg_ctl", "-D", c.data, "-l", filepath.Join(c.root, "log"), "-w", "start")
}

func (c *cluster) promote() { c.run("pg_ctl", "-D", c.data, "-W", "promote") }

// pid returns the postmaster's, 0 when there is none.
func (c *cluster) pid() int {
	text, _ := os.ReadFile(filepath.Join(c.data, pidFile))
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pid, _ := strconv.Atoi(string(line))
	return pid
}

func (c *cluster) signal(s syscall.Signal) {
	c.t.Helper()
	if err := syscall.Kill(c.pid(), s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) remove() {
	if pid := c.pid(); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	_ = c.command("pg_ctl", "-D", c.data, "-m", "immediate", "-w", "stop").Run()
	if c.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(c.root, "log"))
		c.t.Logf("log of %s:\n%s", c.data, log[max(0, len(log)-3000):])
	}
	_ = os.RemoveAll(c.root)
}

func (c *cluster) dsn(role string) string {
	return fmt.Sprintf("host=%s port=%d user=%s", c.root, c.port, role)
}

// connect opens a session that the test's end closes.
func (c *cluster) connect(dsn string) *pgconn.PgConn {
	c.t.Helper()
	conn, err := pgconn.Connect(c.t.Context(), dsn+" dbname=postgres")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// sql runs each statement by itself as the superuser.
func (c *cluster) sql(statements ...string) {
	c.t.Helper()
	conn := c.connect(c.dsn("postgres"))
	defer conn.Close(c.t.Context())
	for _, s := range statements {
		if _, err := conn.Exec(c.t.Context(), s).ReadAll(); err != nil {
			c.t.Fatalf("%s: %v", s, err)
		}
	}
}

// eventually polls for a fact and returns how long it took.
func eventually(t *testing.T, what string, limit time.Duration, fact func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if fact() {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
	return 0
}
