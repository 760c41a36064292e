// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const asProgram = "PGWATCHDOG_TEST_MAIN"

// TestMain lets the test binary be pgwatchdog itself.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// patience is generous: it decides nothing.
const patience = 30 * time.Second

// unit stands for the service manager: it starts the agent without an instance,
// and keeps what the agent gives it.
type unit struct {
	t      *testing.T
	dir    string
	port   int
	conn   *net.UnixConn
	kept   map[string]*os.File
	told   []string
	cmd    *exec.Cmd
	output bytes.Buffer
}

func newUnit(t *testing.T) *unit {
	t.Helper()
	u := &unit{t: t, dir: t.TempDir(), kept: map[string]*os.File{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	if u.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: u.socket(), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		u.conn.Close()
		for _, f := range u.kept {
			f.Close()
		}
		if u.cmd != nil && u.cmd.ProcessState == nil {
			u.kill()
		}
		if t.Failed() {
			t.Logf("told %q; output:\n%s", u.told, u.output.String())
		}
	})
	return u
}

func (u *unit) socket() string { return filepath.Join(u.dir, "notify") }

// start starts the agent with everything kept, by a shell, which gives the process
// id that LISTEN_PID has to name.
func (u *unit) start() {
	u.t.Helper()
	u.told = nil
	u.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, os.Args[0],
		"--dsn", "host="+u.dir+" user=nobody", "--state-dir", filepath.Join(u.dir, "state"), "--config", u.config(),
		"--set", fmt.Sprint("port=", u.port), "--set", "listen_addresses=127.0.0.1")
	u.cmd.Env = append(os.Environ(), asProgram+"=1", "NOTIFY_SOCKET="+u.socket(), "WATCHDOG_USEC=300000",
		fmt.Sprint("LISTEN_FDS=", len(u.kept)))
	for _, f := range u.kept {
		u.cmd.ExtraFiles = append(u.cmd.ExtraFiles, f)
	}
	u.cmd.Stdout, u.cmd.Stderr = &u.output, &u.output
	if err := u.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
}

func (u *unit) config() string {
	path := filepath.Join(u.dir, "pgwatchdog.conf")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return path
}

func (u *unit) kill() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// until reads messages until the wanted one has come times times.
func (u *unit) until(want string, times int) {
	u.t.Helper()
	if err := u.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		u.t.Fatal(err)
	}
	for count := 0; count < times; {
		text, oob := make([]byte, 4096), make([]byte, 256)
		n, oobn, _, _, err := u.conn.ReadMsgUnix(text, oob)
		if err != nil {
			u.t.Fatalf("wait for %q: %v", want, err)
		}
		u.told = append(u.told, string(text[:n]))
		u.keep(string(text[:n]), oob[:oobn])
		if string(text[:n]) == want {
			count++
		}
	}
}

func (u *unit) keep(text string, oob []byte) {
	u.t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		u.t.Fatal(err)
	}
	_, name, _ := strings.Cut(text, "FDNAME=")
	if u.kept[name] != nil { // the store has it already
		_ = unix.Close(fds[0])
		return
	}
	u.kept[name] = os.NewFile(uintptr(fds[0]), name)
}

func (u *unit) dial() net.Conn {
	u.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", u.port))
	if err != nil {
		u.t.Fatal(err)
	}
	return conn
}

func TestServiceManagerIsToldAndKeepsSockets(t *testing.T) {
	u := newUnit(t)
	u.start()
	u.until("READY=1", 1)
	if _, ok := u.kept[fmt.Sprintf("tcp-127.0.0.1_%d", u.port)]; !ok || len(u.kept) != 1 {
		t.Fatalf("kept %v, want the TCP listener", u.kept)
	}
	u.until("WATCHDOG=1", 3)

	u.kill() // no goodbye
	waiting := u.dial()
	defer waiting.Close()
	u.start()
	u.until("READY=1", 1)
	answered(t, waiting)
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	u.until("STOPPING=1", 1)
	if err := u.cmd.Wait(); err != nil {
		t.Errorf("pgwatchdog ended: %v", err)
	}
	if slices.ContainsFunc(u.told, func(text string) bool { return strings.HasPrefix(text, "FDSTOREREMOVE") }) {
		t.Errorf("told %q: a stop gives no socket up", u.told)
	}
	u.dial().Close()
}

// answered sends what is no heartbeat: an agent closes the connection.
func answered(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("no heartbeat, but long enough to be seen as one")); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadAll(conn)
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		t.Error("nobody took the connection that was waiting")
	}
}
