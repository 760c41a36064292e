// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Each way of waiting returns what was there before, what comes meanwhile, and comes
// after the other.
func TestEpollSet(t *testing.T) {
	e, err := newEpollSet()
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		t.Fatal(err)
	}
	tell := func() { _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
	take := func(what string, wait func([]unix.EpollEvent) (int, error)) {
		t.Helper()
		events := make([]unix.EpollEvent, 4)
		if n, err := wait(events); n != 1 || err != nil || events[0].Fd != int32(fd) {
			t.Fatalf("%s: %d events, %v: %v", what, n, events[0], err)
		}
		var b [8]byte
		_, _ = unix.Read(fd, b[:])
	}
	for range 3 {
		for what, wait := range map[string]func([]unix.EpollEvent) (int, error){"park": e.park, "block": e.block} {
			tell()
			take(what+", there", wait)
			time.AfterFunc(2*time.Millisecond, tell)
			take(what+", later", func(events []unix.EpollEvent) (n int, err error) {
				for n == 0 && err == nil { // a signal
					n, err = wait(events)
				}
				return n, err
			})
			if parked := e.parked != nil; parked != (what == "park") {
				t.Errorf("%s: parked %t", what, parked)
			}
			if n, err := e.look(make([]unix.EpollEvent, 4)); n != 0 || err != nil {
				t.Errorf("%s: %d events left, %v", what, n, err)
			}
		}
	}
}

// A loop is busy while passes follow each other at once, or when it has so many
// sessions that it keeps them apart.
func TestBusyLoop(t *testing.T) {
	l := &Loop{least: forever}
	at := mono.Instant(0)
	expect := func(what string, want bool, passes int, every time.Duration) {
		t.Helper()
		for range passes {
			at = at.Add(every)
			l.noteHurry(at)
		}
		if got := l.busy(); got != want {
			t.Errorf("%s: busy %t", what, got)
		}
	}
	expect("quiet", false, 100, hurryMoment)
	expect("some at once", false, hurryMost-1, hurryMoment-1)
	expect("many at once", true, 1, hurryMoment-1)
	expect("still", true, 100, 0)
	expect("quiet again", false, 1, hurryMoment)
	l.sessions, l.least = make([]*Session, gatherLeast/gatherPerSession), time.Second
	expect("many sessions", true, 1, time.Second)
}

// A quiet loop parks.
func TestQuietLoopParks(t *testing.T) {
	l := startLoop(t)
	eventually(t, "parked", func() bool {
		return on(l, func() bool { return l.epoll.parked != nil && !l.busy() })
	})
}
