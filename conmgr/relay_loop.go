// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relayLoop passes the bytes of all relays in clear text that were given to it: one
// goroutine and one epoll set, which tells each change once (EPOLLET), so that a
// message costs a read and a write. With two goroutines for each relay the scheduler
// woke a thread for most messages: eight sessions of pgbench -S made 18,300
// transactions a second on two processors, and make 21,400 so (make bench-modes).
//
//	epoll_wait -> pairs that something happened to -> their lanes move, each at most
//	turnBytes; small messages are sent together at the end (sends) -> those that could
//	go on, with what happened meanwhile -> ...
//
// A pair is closed by anybody, under its lock; the loop then finds it closed.
type relayLoop struct {
	epoll, wake int
	total       [2]*atomic.Int64 // bytes passed, by [towards]

	buf   [bufferSize]byte // of the loop's goroutine, between a read and its write
	again []*pair          // that could go on

	sends  sends       // of the loop's goroutine
	stream streamWatch // of the loop's goroutine
	gather func()      // lets pieces of streams gather

	mu    sync.Mutex // guards the following
	pairs []*pair    // by slot, nil where one is free
	free  []int32
	ended bool
}

// wakeSlot stands for the descriptor that wakes the loop.
const wakeSlot = -1

// maxLoops bounds the loops, whose descriptors are of the reserve: two each.
const maxLoops = 8

// RelayLoops returns how many loops a server has, each with a thread of its own: half
// of the processors that this process may use when it is called first, at most 8.
func RelayLoops() int { return min(halfOfProcessors(), maxLoops) }

var halfOfProcessors = sync.OnceValue(func() int { return max(1, runtime.GOMAXPROCS(0)/2) })

func newRelayLoop(total [2]*atomic.Int64) (l *relayLoop, err error) {
	l = &relayLoop{epoll: -1, wake: -1, total: total, gather: letGather}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot})
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("make relay loop: %w", err)
	}
	l.sends.open()
	return l, nil
}

// end lets run return. All pairs must have ended.
func (l *relayLoop) end() {
	l.mu.Lock() // run closes wake when it has seen ended: not before it is written to
	defer l.mu.Unlock()
	l.ended = true
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (l *relayLoop) close() {
	for _, fd := range []int{l.epoll, l.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	l.sends.close()
}

// sideEvent is what happened to one side of a pair.
type sideEvent struct {
	pair   *pair
	side   towards // of the socket
	events uint32
}

// run passes bytes until end, then closes the loop.
func (l *relayLoop) run() {
	defer l.close()
	runtime.LockOSThread() // its thread ends with it
	ordinarySlice()
	var events [256]unix.EpollEvent
	var found [len(events)]sideEvent
	for {
		n := l.await(events[:])
		happened, ended := l.translate(events[:n], found[:0])
		if ended {
			return
		}
		again := l.again
		l.again = nil
		live := len(happened) == 0 || len(again) > 0
		for _, e := range happened {
			live = e.pair.take(l, e.side, e.events) || live
		}
		for _, p := range again {
			p.goOn(l)
		}
		l.sends.flush()
		switch gather := l.stream.turn(); {
		case !live:
			standBack(2 * time.Millisecond)
		case gather && len(l.again) == 0:
			l.gather()
		}
	}
}

// await waits for events, not at all while pairs could go on. Go's scheduler is not told
// of a short wait, and most waits of a busy loop are short: told, its watchman (sysmon,
// retake in the runtime's proc.go) takes the processor away from who waits, and looks
// around every 20 us for a while after each time.
func (l *relayLoop) await(events []unix.EpollEvent) int {
	if len(l.again) > 0 {
		return quickWait(l.epoll, events, 0)
	}
	if othersHaveProcessors() {
		if n := quickWait(l.epoll, events, time.Millisecond); n > 0 {
			return n
		}
	}
	n, err := unix.EpollWait(l.epoll, events, -1)
	if err != nil {
		return 0 // EINTR: nothing else is possible
	}
	return n
}

// othersHaveProcessors reports whether one of Go's processors is left when each loop
// keeps its own: not with an administrator's GOMAXPROCS=1.
func othersHaveProcessors() bool { return runtime.GOMAXPROCS(0) > RelayLoops() }

// standBack lets events gather. After a fault they are those alone of who was told of it:
// each of these sockets changes its state twice, which wakes who sleeps in epoll_wait,
// for nothing. Until they are released, messages of others wait so long at most.
func standBack(moment time.Duration) {
	ts := unix.NsecToTimespec(int64(moment))
	_ = unix.Nanosleep(&ts, nil) // a signal that cuts it short does no harm
}

// ordinarySlice takes the short time slice that the heartbeat's process asks for from
// this thread: one that waits for its turn finds several messages at once.
func ordinarySlice() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL && attr.Policy != unix.SCHED_BATCH {
		return
	}
	attr.Runtime = 0 // the kernel's own (sched_setattr(2), Linux 6.12)
	_ = unix.SchedSetAttr(0, attr, 0)
}

// translate finds the pairs of events.
func (l *relayLoop) translate(events []unix.EpollEvent, found []sideEvent) (happened []sideEvent, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if e.Fd == wakeSlot {
			continue
		}
		if p := l.pairs[e.Fd]; p != nil {
			found = append(found, sideEvent{p, towards(e.Pad), e.Events})
		}
	}
	return found, l.ended
}

// add takes over two sockets that do not block; an error leaves them to the caller.
func (l *relayLoop) add(p *pair) error {
	p.slot = l.place(p)
	for side, fd := range p.fd {
		err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: p.slot, Pad: int32(side),
		})
		if err != nil {
			l.remove(p)
			for _, fd := range p.fd[:side] {
				_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, fd, nil)
			}
			return fmt.Errorf("add relay to epoll set: %w", err)
		}
	}
	return nil
}

func (l *relayLoop) place(p *pair) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		slot := l.free[n-1]
		l.free = l.free[:n-1]
		l.pairs[slot] = p
		return slot
	}
	l.pairs = append(l.pairs, p)
	return int32(len(l.pairs) - 1)
}

// remove gives the slot back.
func (l *relayLoop) remove(p *pair) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs[p.slot] = nil
	l.free = append(l.free, p.slot)
}

// makeLoops makes the server's relay loops.
func (s *Server) makeLoops() error {
	total := [2]*atomic.Int64{towardsInstance: &s.stats.bytesToInstances, towardsClient: &s.stats.bytesToClients}
	for range RelayLoops() {
		l, err := newRelayLoop(total)
		if err != nil {
			s.endLoops()
			return err
		}
		s.loops = append(s.loops, l)
		s.looping.Go(l.run)
	}
	return nil
}

// endLoops returns when the loops have ended.
func (s *Server) endLoops() {
	for _, l := range s.loops {
		l.end()
	}
	s.looping.Wait()
}

// loop returns the loop whose turn it is to take a relay.
func (s *Server) loop() *relayLoop {
	return s.loops[s.nextLoop.Add(1)%uint32(len(s.loops))]
}
