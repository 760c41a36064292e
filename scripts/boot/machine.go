// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// machine is a Debian system of its own, up to the kernel.
type machine struct {
	name, addr string
	lab        *lab
	dir        string // its files: root, upper and work layer, console
	binds      []string
	nspawn     *exec.Cmd     // nil: off
	ended      chan struct{} // closed when nspawn has ended
	leader     int           // its systemd, as a process of the host; 0: not known yet
}

// patience is for a machine in trouble; nothing that passes waits for it.
const patience = 3 * time.Minute

// mustMachine makes a machine that is off. binds are directories of the host that it
// sees, as "host's path:machine's path".
func (l *lab) mustMachine(t *testing.T, name, addr string, binds ...string) *machine {
	t.Helper()
	m := &machine{name: name, addr: addr, lab: l, dir: filepath.Join(l.dir, name), binds: binds}
	l.machines = append(l.machines, m)
	for _, dir := range []string{"root", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", l.tree, filepath.Join(m.dir, "upper"), filepath.Join(m.dir, "work"))
	if err := unix.Mount("overlay", m.root(), "overlay", 0, layers); err != nil {
		t.Fatalf("mount the layers of %s: %v", name, err)
	}
	for path, text := range map[string]string{
		"etc/hostname":                       name + "\n",
		"etc/hosts":                          "127.0.0.1 localhost\n",
		"etc/systemd/network/10-lab.network": fmt.Sprintf(network, addr),
	} {
		if err := os.WriteFile(filepath.Join(m.root(), path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *machine) root() string { return filepath.Join(m.dir, "root") }

// port is the bridge's end of the machine's cable, as systemd-nspawn names it.
func (m *machine) port() string { return "vb-" + m.name }

// mustBoot switches the machine on and waits until systemd has started everything.
func (m *machine) mustBoot(t *testing.T) {
	t.Helper()
	args := []string{
		"--quiet", "--register=no", "--directory=" + m.root(), "--boot", "--machine=" + m.name,
		"--network-bridge=br0", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only",
		// What pgwatchdog's unit may use.
		"--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf perf_event_open",
	}
	if len(m.lab.cgroups) > 0 {
		args = append(args, "--keep-unit")
	}
	for _, bind := range m.binds {
		args = append(args, "--bind-ro="+bind)
	}
	console, err := os.OpenFile(filepath.Join(m.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	m.leader = 0
	m.nspawn = exec.Command("sh", m.launcher(args)...)
	m.nspawn.Stdout, m.nspawn.Stderr = console, console
	m.nspawn.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setsid: true}
	m.start(t)
	agenttest.Eventually(t, patience, m.name+" has booted", m.booted)
}

// launcher are the arguments of sh: it joins the lab's control groups, makes a group
// for the machine in each, and becomes systemd-nspawn in the lab's network.
func (m *machine) launcher(args []string) []string {
	const script = `set -eu
id=$1 name=$2 groups=$3
shift 3
for group in $groups; do
	mkdir -p "$group/$name"
	echo $$ >"$group/$name/cgroup.procs"
done
exec nsenter --net="/run/netns/$id" systemd-nspawn "$@"`
	return append([]string{"-c", script, "sh", m.lab.id, m.name, strings.Join(m.lab.cgroups, " ")}, args...)
}

// start starts nspawn on a thread that lives as long as the program: Pdeathsig is
// about the thread.
func (m *machine) start(t *testing.T) {
	t.Helper()
	m.ended = make(chan struct{})
	started := make(chan error, 1)
	go m.supervise(m.nspawn, m.ended, started)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
}

func (m *machine) supervise(cmd *exec.Cmd, ended chan<- struct{}, started chan<- error) {
	defer close(ended)
	runtime.LockOSThread()
	err := cmd.Start()
	started <- err
	if err == nil {
		_ = cmd.Wait()
	}
}

// booted looks for the machine's systemd and asks it.
func (m *machine) booted() bool {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.nspawn.Process.Pid, m.nspawn.Process.Pid))
	fields := strings.Fields(string(children))
	if err != nil || len(fields) == 0 {
		return false
	}
	if m.leader, err = strconv.Atoi(fields[0]); err != nil {
		m.leader = 0
		return false
	}
	out, err := m.run(context.Background(), "systemctl is-system-running")
	return err == nil || strings.TrimSpace(out) == "degraded"
}

// command is a shell script inside the machine.
func (m *machine) command(ctx context.Context, script string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.leader), "--all", "--wdns=/",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TERM=dumb", "PGCONNECT_TIMEOUT=10",
		"bash", "-e", "-u", "-o", "pipefail", "-c", script)
}

// run returns what a script wrote.
func (m *machine) run(ctx context.Context, script string) (string, error) {
	out, err := m.command(ctx, script).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on %s: %s: %w\n%s", m.name, script, err, out)
	}
	return string(out), nil
}

// must is run for what cannot fail; without the newline at the end.
func (m *machine) must(t *testing.T, script string) string {
	t.Helper()
	out, err := m.run(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// sees reports whether a script ends well and writes what is wanted.
func (m *machine) sees(script, want string) bool {
	out, err := m.run(context.Background(), script)
	return err == nil && strings.TrimSpace(out) == want
}

// off waits until the machine has gone down.
func (m *machine) off(t *testing.T) {
	t.Helper()
	select {
	case <-m.ended:
		m.nspawn = nil
	case <-time.After(patience):
		t.Fatalf("%s does not go down", m.name)
	}
}

// tell logs what the machine has to say after a failure.
func (m *machine) tell(t *testing.T) {
	if m.nspawn == nil {
		return
	}
	out, _ := m.run(context.Background(), "systemctl --failed --no-legend; journalctl --no-pager -n 60 -u 'pgwatchdog@*' -u 'conmgr@*' -u 'postgresql@*'")
	t.Logf("%s:\n%s", m.name, out)
}

// close switches the machine off. Its systemd ends after all others of its processes,
// and nspawn after that.
func (m *machine) close(t *testing.T) {
	if m.nspawn != nil {
		if m.leader == 0 || unix.Kill(m.leader, unix.SIGKILL) != nil {
			_ = m.nspawn.Process.Kill()
		}
		m.off(t)
	}
	if err := unix.Unmount(m.root(), unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		t.Errorf("layers of %s stay: %v", m.name, err)
	}
}
