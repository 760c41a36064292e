// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// lateStore closes what it is to forget when it is asked for that, as a service
// manager does that is busy. It belongs to the loop.
type lateStore struct {
	kept, forgotten []int
}

func (s *lateStore) Keep(_ string, fd int) {
	if kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s.kept = append(s.kept, kept)
	}
}

func (s *lateStore) Forget(string) { s.kept, s.forgotten = nil, append(s.forgotten, s.kept...) }

func (s *lateStore) close() {
	for _, fd := range append(s.kept, s.forgotten...) {
		_ = unix.Close(fd)
	}
	s.kept, s.forgotten = nil, nil
}

// An address that was given up is in use until the service manager has closed its
// copy: that is no trouble, unless it stays so.
func TestListenWaitsForTheServiceManager(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	narrow := netip.MustParseAddrPort(free.Addr().String())
	_ = free.Close()
	wide := netip.AddrPortFrom(netip.IPv4Unspecified(), narrow.Port())

	store, told := &lateStore{}, new(agentLog)
	s := mustServerWith(t, Options{Sockets: store, Log: slog.New(slog.NewTextHandler(told, nil))})
	complained := func() bool { return told.lines("cannot serve heartbeats on every address") > 0 }
	listens := func() (yes bool) {
		s.onLoop(func() {
			yes = s.gate.retryIn == 0 && len(s.gate.listener.Addrs()) == 1 && s.gate.listener.Addrs()[0] == wide
		})
		return yes
	}
	t.Cleanup(func() { s.onLoop(store.close) })

	s.onLoop(func() {
		s.gate.listen([]netip.AddrPort{narrow})
		s.gate.listen([]netip.AddrPort{wide})
		if s.gate.retryIn == 0 {
			t.Errorf("listens on %v while %v is kept: the test proves nothing", wide, narrow)
		}
		if complained() {
			t.Error("complains at once")
		}
	})
	agenttest.Eventually(t, time.Minute, "a complaint about an address that stays in use", complained)
	s.onLoop(store.close)
	agenttest.Eventually(t, time.Minute, "it listens", listens)
}
