// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTwoLabsDoNotSeeEachOther(t *testing.T) {
	one, two := MustLab(t, "a", "b"), MustLab(t, "a", "b")
	w1 := mustWire(t, one.Host("a"), one.Host("b"), one.Host("b").Addr4)
	w2 := mustWire(t, two.Host("a"), two.Host("b"), two.Host("b").Addr4)
	MustFault(t, one.Host("b").Cut)
	w1.send(t, 2)
	w2.send(t, 2)
	if got := w1.received(t); got != 0 {
		t.Errorf("%d datagrams in the cut lab", got)
	}
	if got := w2.received(t); got != 2 {
		t.Errorf("%d of 2 datagrams in the other lab", got)
	}
}

func TestCommandRunsInsideAsUser(t *testing.T) {
	l := MustLab(t, "a")
	cmd := l.Host("a").Command(t.Context(), "sh", "-c", "id -u; ls /sys/class/net; cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*")
	cmd.User = "nobody"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := string(out)
	if !strings.HasPrefix(text, "65534\neth0\nlo\n") {
		t.Errorf("expected nobody's id and the host's interfaces, got:\n%s", text)
	}
	if !strings.Contains(text, "/"+l.ID()+"/a\n") {
		t.Errorf("not in the host's control group:\n%s", text)
	}
}

func TestDoRunsInsideAndLeavesTheCallerOutside(t *testing.T) {
	l := MustLab(t, "a")
	if err := GuardHostNamespace(); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("guard outside: %v, want %v", err, ErrHostNamespace)
	}
	for range 20 {
		if err := l.Host("a").Do(GuardHostNamespace); err != nil {
			t.Fatalf("guard inside: %v", err)
		}
	}
	if err := GuardHostNamespace(); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("guard afterwards: %v, want %v", err, ErrHostNamespace)
	}
	boom := errors.New("boom")
	if err := l.Host("a").Do(func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error of Do: %v", err)
	}
}

func TestProcessEnds(t *testing.T) {
	l := MustLab(t, "a")
	p := MustStart(t, l.Host("a"), Spec{Name: "sleeper", Path: "sleep", Args: []string{"1000"}, User: "nobody"})
	if _, err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 5*time.Second, "stopped", func() bool { return processState(t, p.Pid()) == "T" })
	if _, err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 5*time.Second, "running", func() bool { return processState(t, p.Pid()) == "S" })
	var exit *exec.ExitError
	if err := p.Stop(t.Context()); !errors.As(err, &exit) {
		t.Errorf("stop: %v, want the end by a signal", err)
	}
	if p.Running() {
		t.Error("running after its end")
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v", err)
	}
}

func processState(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	return after[:1]
}

// TestMain makes the test binary usable as the owner of a lab that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("AGENTTEST_OWNER") == "1" {
		ownUntilKilled()
	}
	os.Exit(m.Run())
}

// ownUntilKilled makes a lab with a process, says its id and never ends.
func ownUntilKilled() {
	l, err := New(context.Background(), "a")
	if err != nil {
		_, _ = os.Stdout.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
	p, err := l.Host("a").Start(Spec{Name: "orphan", Path: "setsid", Args: []string{"sh", "-c", "sleep 1000 & wait"}})
	if err != nil {
		_, _ = os.Stdout.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString(l.ID() + " " + strconv.Itoa(p.Pid()) + "\n")
	select {}
}

func TestSweepAfterAKilledOwner(t *testing.T) {
	NeedLab(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.CommandContext(t.Context(), self)
	owner.Env = append(os.Environ(), "AGENTTEST_OWNER=1")
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	id, _, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok || strings.HasPrefix(line, "error") {
		t.Fatalf("owner said %q", line)
	}
	root, err := cgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	group := cgroup(filepath.Join(root, id, "a"))
	pids, err := group.processes()
	if err != nil || len(pids) == 0 {
		t.Fatalf("processes of the lab: %v, %v", pids, err)
	}

	// A living owner's lab stays.
	if _, err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netnsDir + "/" + id + "-a"); err != nil {
		t.Fatalf("swept a lab whose owner lives: %v", err)
	}

	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	swept, err := Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("swept %v", swept)
	for _, path := range []string{
		netnsDir + "/" + id + "-a", netnsDir + "/" + id + "-switch", string(group),
		ScratchDir() + "/pgconmgr-" + strings.TrimPrefix(id, "pgcm-"), runDir + "/labs/" + id + ".json",
	} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for _, pid := range pids {
		if _, err := startTime(pid); err == nil {
			t.Errorf("process %d of the lab is left", pid)
		}
	}
}

func TestHostNames(t *testing.T) {
	for _, tt := range []struct {
		names []string
		ok    bool
	}{
		{[]string{"client", "db1"}, true},
		{[]string{"a", "a"}, false},
		{[]string{""}, false},
		{[]string{"averyveryverylongname"}, false},
		{[]string{"../etc"}, false},
		{[]string{"switch"}, false},
	} {
		if err := checkHostNames(tt.names); (err == nil) != tt.ok {
			t.Errorf("%q: %v, want ok = %t", tt.names, err, tt.ok)
		}
	}
	if err := (Options{Hosts: []string{"a"}, Tap: []string{"b"}}).check(); err == nil {
		t.Error("a tap host that is no host: no error")
	}
}
