// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listenNotify stands for the service manager.
func listenNotify(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// next returns the next message and the descriptors in it.
func next(t *testing.T, conn *net.UnixConn) (string, []int) {
	t.Helper()
	text, oob := make([]byte, 4096), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, rights...)
	}
	return string(text[:n]), fds
}

func TestNotifierSpeaksToTheServiceManager(t *testing.T) {
	manager := listenNotify(t)
	n, err := NewNotifier()
	if err != nil || n == nil {
		t.Fatalf("NewNotifier: %v, %v", n, err)
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("a child would notify, too")
	}
	for want, tell := range map[string]func() error{
		"READY=1": n.Ready, "STOPPING=1": n.Stopping, "WATCHDOG=1": n.Alive,
		"STATUS=all is well": func() error { return n.Status("all is well") },
	} {
		if err := tell(); err != nil {
			t.Fatal(err)
		}
		if got, fds := next(t, manager); got != want || len(fds) != 0 {
			t.Errorf("told %q with %d descriptors, want %q", got, len(fds), want)
		}
	}
}

func TestNotifierKeepsSockets(t *testing.T) {
	manager := listenNotify(t)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	n.Keep("tcp-one", int(f.Fd()))
	text, fds := next(t, manager)
	if want := "FDSTORE=1\nFDPOLL=0\nFDNAME=tcp-one"; text != want || len(fds) != 1 {
		t.Fatalf("told %q with %d descriptors, want %q with one", text, len(fds), want)
	}
	defer unix.Close(fds[0])
	name, err := unix.Getsockname(fds[0])
	if in, ok := name.(*unix.SockaddrInet4); err != nil || !ok || in.Port != ln.Addr().(*net.TCPAddr).Port {
		t.Errorf("kept %v, %v; want the listener on %v", name, err, ln.Addr())
	}
	n.Forget("tcp-one")
	if text, _ := next(t, manager); text != "FDSTOREREMOVE=1\nFDNAME=tcp-one" {
		t.Errorf("told %q to forget", text)
	}
}

// A service manager that does not read holds nobody up.
func TestNotifierNeverWaits(t *testing.T) {
	listenNotify(t)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	for range 100_000 {
		if err = n.Alive(); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "resource temporarily unavailable") {
		t.Errorf("with a full queue: %v, want an error", err)
	}
}

func TestNotifierWithoutServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n, err := NewNotifier()
	if n != nil || err != nil {
		t.Fatalf("NewNotifier: %v, %v; want nil", n, err)
	}
	n.Keep("x", 0)
	n.Forget("x")
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
}

func TestAliveEvery(t *testing.T) {
	for usec, want := range map[string]time.Duration{"": 0, "30000000": 10 * time.Second} {
		t.Setenv("WATCHDOG_USEC", usec)
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		if got, err := AliveEvery(); got != want || err != nil {
			t.Errorf("WATCHDOG_USEC=%q: %v, %v; want %v", usec, got, err, want)
		}
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := AliveEvery(); err == nil {
		t.Error("WATCHDOG_USEC=soon: want an error")
	}
}

const helperEnv = "CM_TEST_TAKE_DESCRIPTORS"

// TestTakeDescriptors runs itself as a service with one descriptor: they are numbered
// from 3, which in this process is something else.
func TestTakeDescriptors(t *testing.T) {
	if os.Getenv(helperEnv) != "" {
		takeDescriptors(t)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// sh gives the process id that LISTEN_PID has to name.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestTakeDescriptors$'`, os.Args[0])
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=tcp-one", helperEnv+"="+ln.Addr().String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func takeDescriptors(t *testing.T) {
	fds, err := TakeDescriptors()
	if err != nil || len(fds) != 1 {
		t.Fatalf("TakeDescriptors: %v, %v; want one", fds, err)
	}
	name, err := unix.Getsockname(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	in := name.(*unix.SockaddrInet4)
	got := net.TCPAddr{IP: in.Addr[:], Port: in.Port}
	if got.String() != os.Getenv(helperEnv) {
		t.Errorf("took %v, want %s", &got, os.Getenv(helperEnv))
	}
	if again, err := TakeDescriptors(); len(again) != 0 || err != nil {
		t.Errorf("a second time: %v, %v; want none", again, err)
	}
}
