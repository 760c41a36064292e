// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// store keeps descriptors as systemd does. It belongs to the loop of its listener.
type store map[string]int

func (s store) Keep(name string, fd int) {
	if _, ok := s[name]; ok {
		return
	}
	if kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s[name] = kept
	}
}

func (s store) Forget(name string) {
	if fd, ok := s[name]; ok {
		_ = unix.Close(fd)
		delete(s, name)
	}
}

// serveKept starts a watchdog end on a port of its own, or with what an earlier one
// has left in the store.
func serveKept(t *testing.T, l *Loop, r *recorder, kept store, ring *key.Ring, at netip.AddrPort) *Listener {
	t.Helper()
	fds := slices.Collect(maps.Values(kept))
	next := uint64(1000 * len(fds))
	ln := on(l, func() *Listener {
		return l.Listen(ListenConfig{
			Self: wire.ID{9}, HandshakeTimeout: 2 * time.Second, HalfOpen: 8, Keeper: kept,
			NewSession: func() uint64 { next++; return next },
		}, r)
	})
	err := on(l, func() error {
		if err := ln.Inherit(fds); err != nil {
			return err
		}
		ln.SetRing(ring)
		return ln.SetAddrs([]netip.AddrPort{at})
	})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// freePort returns a port of loopback that nobody has.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), agenttest.FreePort(t))
}

// Nobody is refused while the process is away: what comes meanwhile waits for the
// next one, which takes the sockets over.
func TestSocketsOutliveTheProcess(t *testing.T) {
	transports(t, func(t *testing.T, udp bool) {
		first, second, manLoop := startLoop(t), startLoop(t), startLoop(t)
		ring, addr, kept := mustRing(t, ringOld), freePort(t), store{}
		t.Cleanup(func() {
			for name := range kept {
				kept.Forget(name)
			}
		})
		var dog, heir, man recorder
		ln := serveKept(t, first, &dog, kept, ring, addr)
		on(first, func() any { ln.StopAll(wire.ByeRestart); return nil })
		if n := len(kept); n != 2 {
			t.Fatalf("%d sockets kept, want those of TCP and UDP: %v", n, kept)
		}

		dialKeyed(manLoop, addr, 1, ring, udp, &man)
		if conn, err := net.Dial("tcp", addr.String()); err != nil {
			t.Errorf("connect while the process is away: %v, want to wait in the queue", err)
		} else {
			conn.Close()
		}
		next := serveKept(t, second, &heir, kept, ring, addr)
		armedBoth(t, &heir, &man)
		man.mu.Lock()
		defer man.mu.Unlock()
		if len(man.broken) > 0 {
			t.Errorf("conmgr was refused: %v", man.broken)
		}
		if left := on(second, func() int { return len(next.inherited) }); left != 0 {
			t.Errorf("%d inherited sockets not in use", left)
		}
	})
}

// A socket that the configuration does not want any more is closed for good, and so
// is one that nobody claims.
func TestUnwantedSocketsAreForgotten(t *testing.T) {
	loop, heirLoop := startLoop(t), startLoop(t)
	kept := store{}
	var dog, heir recorder
	here, there := freePort(t), freePort(t)
	ln := serveKept(t, loop, &dog, kept, nil, here)
	on(loop, func() error { return ln.SetAddrs([]netip.AddrPort{there}) })
	if names := slices.Collect(maps.Keys(kept)); len(names) != 1 || names[0] != keptName(false, there) {
		t.Fatalf("kept %v, want %s", names, keptName(false, there))
	}
	on(loop, func() any { ln.StopAll(wire.ByeRestart); return nil })

	next := serveKept(t, heirLoop, &heir, kept, nil, here)
	on(heirLoop, func() any { next.DropInherited(); return nil })
	if conn, err := net.Dial("tcp", there.String()); err == nil {
		conn.Close()
		t.Errorf("%s is still listened on", there)
	}
	on(heirLoop, func() any { _ = next.SetAddrs(nil); return nil })
	if len(kept) != 0 {
		t.Errorf("kept %v, want nothing", kept)
	}
}

func TestInheritRefusesOtherDescriptors(t *testing.T) {
	for name, open := range map[string]func() (int, error){
		"a file": func() (int, error) { return unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) },
		"a socket that does not listen": func() (int, error) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			}
			return fd, err
		},
		"a socket of another family": func() (int, error) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return fd, err
		},
		"a socket without an address": func() (int, error) {
			return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := open()
			if err != nil {
				t.Fatal(err)
			}
			l := startLoop(t)
			ln := on(l, func() *Listener { return l.Listen(ListenConfig{}, new(recorder)) })
			err = on(l, func() error { return ln.Inherit([]int{fd}) })
			if err == nil || !strings.Contains(err.Error(), "expected a") {
				t.Errorf("Inherit: %v, want what was expected", err)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("the descriptor: %v, want it closed", err)
			}
		})
	}
}

// sd_listen_fds(3) allows printable ASCII without colons.
func TestKeptNames(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1:27545":        "udp-10.0.0.1_27545",
		"[::]:27545":            "udp-[__]_27545",
		"[fe80::1%eth0]:27545":  "udp-[fe80__1%eth0]_27545",
		"[2001:db8::5432]:5432": "udp-[2001_db8__5432]_5432",
	} {
		if got := keptName(true, netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("keptName(%s) = %s, want %s", addr, got, want)
		}
	}
}
