// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// cluster is a throw-away PostgreSQL on loopback, with TLS.
type cluster struct {
	bin, dir string
	cred     *syscall.Credential // nil: run as this user
	at       netip.AddrPort
}

// mustCluster starts PostgreSQL, or skips and says what is missing.
func mustCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts PostgreSQL: not with -short")
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		agenttest.Skip(t, "PostgreSQL in /usr/lib/postgresql")
	}
	c := &cluster{bin: filepath.Dir(found[len(found)-1])}
	dir, err := os.MkdirTemp(agenttest.ScratchDir(), "conmgr-pg-")
	if err != nil {
		t.Fatal(err)
	}
	c.dir = dir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		c.cred = mustCredential(t)
		if err := os.Chown(dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	port := agenttest.FreePort(t)
	c.at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	c.mustCertify(t)
	data := filepath.Join(dir, "data")
	if c.cred == nil {
		c.mustRun(t, "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
	} else if err := agenttest.MakeDataDir(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	c.mustRun(t, "pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o",
		fmt.Sprintf("-F -p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c ssl=on -c ssl_cert_file=%s/crt -c ssl_key_file=%s/key",
			port, dir, dir), "start")
	t.Cleanup(func() { c.mustRun(t, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop") })
	return c
}

// mustCredential is the user postgres: PostgreSQL refuses root.
func mustCredential(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		agenttest.Skip(t, "a user postgres to run PostgreSQL as")
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// mustCertificate makes a certificate for names and addresses, and its key, both
// in PEM form. It is its own authority.
func mustCertificate(t testing.TB, names []string, addrs ...netip.Addr) (crt, key []byte) {
	t.Helper()
	crt, key, err := agenttest.Certificate(names, addrs...)
	if err != nil {
		t.Fatal(err)
	}
	return crt, key
}

// mustCertify writes a certificate for localhost and its key.
func (c *cluster) mustCertify(t *testing.T) {
	t.Helper()
	crt, key := mustCertificate(t, []string{"localhost"})
	for name, text := range map[string][]byte{"crt": crt, "key": key} {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if c.cred != nil {
			if err := os.Chown(path, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// mustRun runs a program of PostgreSQL and returns its output.
func (c *cluster) mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), "HOME="+c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	// A file, not a pipe: the postmaster would keep a pipe open.
	out, err := os.Create(filepath.Join(c.dir, "out-"+name))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	return string(text)
}

// Unmodified clients through pass-through to a real instance, which then
// faults.
func TestPassthroughPostgreSQL(t *testing.T) {
	c := mustCluster(t)
	f := mustPassthrough(t, nil, c.at)
	port := f.ProxyPorts()[0].Port
	p := strconv.Itoa(int(port))
	through := func(args ...string) []string {
		return append([]string{"-h", "localhost", "-p", p, "-U", "postgres"}, args...)
	}

	got := c.mustRun(t, "psql", through("-XAtc", "CREATE TABLE c (n int, t text); SELECT pg_is_in_recovery()")...)
	if !strings.Contains(got, "f\n") {
		t.Errorf("psql printed %q", got)
	}
	verified := fmt.Sprintf("host=localhost port=%d user=postgres dbname=postgres sslmode=verify-full sslrootcert=%s/crt", port, c.dir)
	got = c.mustRun(t, "psql", "-XAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", verified)
	if got != "t\n" {
		t.Errorf("TLS end to end: %q", got)
	}
	const rows = 200_000
	file := filepath.Join(c.dir, "rows")
	c.mustRun(t, "psql", through("-XAtc", fmt.Sprintf(`INSERT INTO c SELECT g, repeat('x', 50) FROM generate_series(1, %d) g`, rows))...)
	c.mustRun(t, "psql", through("-XAtc", `\copy c TO '`+file+`'`)...)
	c.mustRun(t, "psql", through("-XAtc", `\copy c FROM '`+file+`'`)...)
	got = c.mustRun(t, "psql", through("-XAtc", "SELECT count(*), sum(n)::bigint FROM c")...)
	if want := fmt.Sprintf("%d|%d\n", 2*rows, int64(rows)*(rows+1)); got != want {
		t.Errorf("after COPY: %q, want %q", got, want)
	}
	c.mustRun(t, "pgbench", through("-i", "-q", "-s", "1", "postgres")...)
	got = c.mustRun(t, "pgbench", through("-S", "-c", "4", "-T", "1", "postgres")...)
	if !strings.Contains(got, "number of failed transactions: 0 ") && !strings.Contains(got, "tps = ") {
		t.Errorf("pgbench printed %s", got)
	}
	testBlockedQuery(t, f, fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres", port))
}

// testBlockedQuery lets the instance fault under a query that waits.
func testBlockedQuery(t *testing.T, f *fixture, where string) {
	conn, err := pgx.Connect(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_sleep(60)")
		ended <- err
	}()
	eventually(t, "bound", func() bool { return f.Apps().Bound(0) == 1 })
	if n := f.picture.View().Instances[0]; n.Instance.Attribute != wire.AttributePrimary {
		t.Fatalf("the instance is %s", n.Instance.Attribute)
	}
	start := time.Now()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	if err := <-ended; err == nil {
		t.Error("the blocked query got no error")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the blocked query's error came after %s", took)
	}
}
