// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// limit is for a machine in trouble.
const limit = 20 * time.Second

// node is a network namespace of its own, and a Watcher in it.
type node struct {
	*recorder
	host *agenttest.Host
	w    *Watcher // nil while that of another process is used
	links
}

// links are what a Watcher is asked while it runs.
type links interface {
	Watch(netip.Addr)
	Unwatch(netip.Addr)
	Source() Source
	Missing() []Missing
}

// mustNode makes a namespace with lo and with eth0 (10.99.0.1/24).
func mustNode(t testing.TB) *node {
	t.Helper()
	return &node{recorder: new(recorder), host: agenttest.MustLab(t, "a").Host("a")}
}

// watch starts a Watcher; the test ends it.
func (n *node) watch(t testing.TB, cfg Config) {
	t.Helper()
	stop := n.start(t, cfg)
	t.Cleanup(stop)
}

// start returns how the Watcher is ended.
func (n *node) start(t testing.TB, cfg Config) (stop func()) {
	t.Helper()
	if withoutRights() {
		return n.startWithoutRights(t, cfg)
	}
	return n.startWith(t, cfg, openBPF)
}

// idle makes a Watcher that is not run: the test calls its parts one by one.
func (n *node) idle(t testing.TB, cfg Config, open opener) *Watcher {
	t.Helper()
	n.make(t, cfg, open)
	t.Cleanup(func() {
		n.w.stopTimers()
		if err := n.w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n.w
}

func (n *node) make(t testing.TB, cfg Config, open opener) {
	t.Helper()
	cfg.OnEvent, cfg.OnPaths = n.onEvent, n.onPaths
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	}
	err := n.host.Do(func() (err error) {
		n.w, err = newWatcher(cfg, open)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.links = n.w
}

func (n *node) startWith(t testing.TB, cfg Config, open opener) (stop func()) {
	t.Helper()
	n.make(t, cfg, open)
	w := n.w
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(limit):
			t.Error("run does not end")
		}
	}
}

// mustWatch returns when the ways to the peers have been looked up.
func (n *node) mustWatch(t testing.TB, peers ...string) (addrs []netip.Addr) {
	t.Helper()
	for _, peer := range peers {
		addr := netip.MustParseAddr(peer)
		n.Watch(addr)
		addrs = append(addrs, addr)
	}
	n.settle(t)
	return addrs
}

// settle waits until everything asked for before is done: the path of an address
// without a route, watched now, is told after it.
func (n *node) settle(t testing.TB) {
	t.Helper()
	mark := netip.MustParseAddr("192.0.2.1")
	before := n.told(mark)
	n.Watch(mark)
	agenttest.Eventually(t, limit, "the requests are done", func() bool { return n.told(mark) > before })
	n.Unwatch(mark)
}

func addrOf(s string) netip.Addr { return netip.MustParseAddr(s) }

// ip runs lines of ip(8) in the namespace.
func (n *node) ip(t testing.TB, lines ...string) {
	t.Helper()
	err := n.host.Do(func() error {
		cmd := exec.CommandContext(t.Context(), "ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// try runs one line of ip(8) that a kernel may not know.
func (n *node) try(line string) bool {
	return n.host.Do(func() error { return exec.Command("ip", strings.Fields(line)...).Run() }) == nil
}

func (n *node) sysctl(t testing.TB, name, value string) {
	t.Helper()
	err := n.host.Do(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644) })
	if err != nil {
		t.Fatal(err)
	}
}

// tap is a tap device, whose carrier can be set: unlike a veth it meets the
// kernel's throttle. It goes with its file.
type tap struct {
	name string
	fd   int
}

func (n *node) mustTap(t testing.TB, name string) *tap {
	t.Helper()
	p := &tap{name: name}
	err := n.host.Do(func() (err error) {
		p.fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(p.fd, unix.TUNSETIFF, request)
	})
	if err != nil {
		agenttest.Skip(t, "a tap device: "+err.Error())
	}
	t.Cleanup(p.remove)
	return p
}

// carrier sets the carrier and returns when that began.
func (p *tap) carrier(t testing.TB, on bool) int64 {
	t.Helper()
	value := 0
	if on {
		value = 1
	}
	at := int64(clock.Now())
	if err := unix.IoctlSetPointerInt(p.fd, unix.TUNSETCARRIER, value); err != nil {
		t.Fatalf("carrier of %s: %v", p.name, err)
	}
	return at
}

func (p *tap) remove() {
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

// testLog writes a log where the test's is.
type testLog struct{ t testing.TB }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}
