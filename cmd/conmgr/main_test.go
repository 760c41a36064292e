// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// TestMain lets the test binary be conmgr itself, as a user who is not root.
func TestMain(m *testing.M) {
	if os.Getenv("CONMGR_TEST_MAIN") != "" {
		os.Exit(run(env{
			args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr,
			getenv: os.Getenv, uid: 1000, euid: 1000, now: time.Now,
		}))
	}
	os.Exit(m.Run())
}

func runTest(uid int, args ...string) (exit int, stdout, stderr string) {
	var out, errs bytes.Buffer
	exit = run(env{
		args: args, stdout: &out, stderr: &errs,
		getenv: func(string) string { return "" }, uid: uid, euid: uid, now: time.Now,
	})
	return exit, out.String(), errs.String()
}

func mustDirectory(t *testing.T, config string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "conmgr.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	good := mustDirectory(t, "backend_host0 = db1\n")
	for _, tt := range []struct {
		name string
		uid  int
		args []string
		exit int
		want string
	}{
		{"root", 0, []string{"-D", good}, cli.ExitFailure, `conmgr: error: "root" execution of conmgr is not permitted`},
		{"no directory", 1000, nil, cli.ExitFailure, "conmgr: error: no directory: expected -D or the environment variable CMDATA"},
		{"absent directory", 1000, []string{"-D", "/nonexistent"}, cli.ExitFailure, "conmgr: error: directory /nonexistent: no such file or directory"},
		{"argument", 1000, []string{"-D", good, "start"}, cli.ExitUsage, `conmgr: error: too many arguments, the first is "start"`},
		{"flag", 1000, []string{"--fast"}, cli.ExitUsage, "conmgr: error: unknown flag: --fast"},
		{"no config", 1000, []string{"-D", t.TempDir()}, cli.ExitFailure, "conmgr: error: open configuration"},
		{"bad config", 1000, []string{"-D", mustDirectory(t, "port = x")}, cli.ExitFailure, "conmgr: error: "},
		{"descriptors", 1000, []string{"-D", mustDirectory(t, "backend_host0 = db1\nmax_connections = 2147483647\n")}, cli.ExitFailure, "file descriptors: 2147483722 needed"},
	} {
		exit, stdout, stderr := runTest(tt.uid, tt.args...)
		if exit != tt.exit || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %d, %q", tt.name, exit, stdout, stderr, tt.exit, tt.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	if exit, out, _ := runTest(0, "--version"); exit != 0 || out != cli.VersionLine("conmgr")+"\n" {
		t.Errorf("version: %d, %q", exit, out)
	}
	if exit, out, _ := runTest(0, "--help"); exit != 0 || out != usage {
		t.Errorf("help: %d, %q", exit, out)
	}
}

type process struct {
	*exec.Cmd
	lines *bufio.Scanner
}

func mustStart(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-D", dir)
	cmd.Env = append(append(os.Environ(), "CONMGR_TEST_MAIN=1"), env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return &process{cmd, bufio.NewScanner(stderr)}
}

// mustRead returns the first line that contains want.
func (p *process) mustRead(t *testing.T, want string) string {
	t.Helper()
	var seen []string
	for p.lines.Scan() {
		seen = append(seen, p.lines.Text())
		if strings.Contains(p.lines.Text(), want) {
			return p.lines.Text()
		}
	}
	t.Fatalf("no line with %q in %q", want, seen)
	return ""
}

func TestLife(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		signal syscall.Signal
		want   string
	}{
		{syscall.SIGTERM, "LOG:  received fast shutdown request"},
		{syscall.SIGINT, "LOG:  received fast shutdown request"},
		{syscall.SIGQUIT, "LOG:  received immediate shutdown request"},
		{syscall.SIGUSR2, "mode=restart"},
	} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			t.Parallel()
			dir := mustDirectory(t, fmt.Sprintf("backend_hostaddr0 = 127.0.0.1\nwatchdog_port0 = 1\n"+
				"port = %d\nheartbeat_timeout = 1\n", agenttest.FreePort(t)))
			p := mustStart(t, dir)
			p.mustRead(t, "WARNING:  "+filepath.Join(dir, "conmgr.conf")+":4: heartbeat_timeout: ")
			p.mustRead(t, "LOG:  starting conmgr")
			if _, err := os.Stat(filepath.Join(dir, "conmgr.pid")); err != nil {
				t.Error(err)
			}
			if exit, _, stderr := runTest(1000, "-D", dir); exit != 1 || !strings.Contains(stderr, "another conmgr is running (PID: ") {
				t.Errorf("a second conmgr: exit %d, %q", exit, stderr)
			}
			_ = p.Process.Signal(syscall.SIGHUP)
			p.mustRead(t, "LOG:  received SIGHUP")
			_ = p.Process.Signal(tt.signal)
			p.mustRead(t, tt.want)
			p.mustRead(t, "LOG:  stopped conmgr")
			if err := p.Wait(); err != nil {
				t.Errorf("exit: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "conmgr.pid")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("pid file: %v", err)
			}
		})
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	port := agenttest.FreePort(t)
	dir := mustDirectory(t, fmt.Sprintf("backend_hostaddr0 = 127.0.0.1\nwatchdog_port0 = 1\nport = %d\n", port))
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if err := manager.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p := mustStart(t, dir, "NOTIFY_SOCKET="+manager.LocalAddr().String())
	told(t, manager, "READY=1")
	if conn, err := net.Dial("tcp", fmt.Sprint("localhost:", port)); err != nil {
		t.Errorf("conmgr is ready, but serves nobody: %v", err)
	} else {
		conn.Close()
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	told(t, manager, "STOPPING=1")
	p.mustRead(t, "LOG:  stopped conmgr")
	if err := p.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

func told(t *testing.T, manager net.Conn, want string) {
	t.Helper()
	text := make([]byte, 100)
	if n, err := manager.Read(text); err != nil || string(text[:n]) != want {
		t.Fatalf("told %q, %v; want %q", text[:n], err, want)
	}
}
