// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// paceEvery is the least time between two log lines of one cause: peers set the
// timers by which the loop's lateness and its silent sessions are weighed, so
// they could make it write a line per pass.
const paceEvery = 10 * time.Second

// eventBatch is how many ready sockets one epoll_wait returns at most.
const eventBatch = 256

// source is a descriptor in the epoll set.
type source interface {
	// ready handles the events; it reads a readable socket to its end, and the
	// clock (Loop.now) after each time that something may have come.
	ready(events uint32)
}

// registered is a source with the generation of its descriptor number, so that
// an event for a descriptor closed in this very batch cannot reach its successor.
type registered struct {
	src source
	gen int32
}

// Loop runs all heartbeat sessions of one daemon. Create it with [NewLoop].
type Loop struct {
	log    *slog.Logger
	epoll  *epollSet
	wake   int // eventfd
	timer  int // timerfd, CLOCK_BOOTTIME
	now    mono.Instant
	began  mono.Instant // the last pass
	hurry  int          // passes in a row that came at once after the one before
	due    mono.Instant // what the timerfd is set to
	gen    int32
	fds    []registered // by descriptor
	events []unix.EpollEvent
	timers timerHeap
	firing *Timer     // in the heap, but not set
	frame  wire.Frame // the one that is being received
	rbuf   []byte
	wbuf   []byte
	outs   []*heartbeat.Output // free ones

	received, outgoing *packets // UDP; nil until used
	outgoingFD         int      // socket that outgoing is for

	sessions  []*Session
	least     time.Duration // shortest timeout of all sessions, or less
	stale     bool          // a session has left: least may be too short
	listeners []*Listener
	links     Links // may be nil
	stall     *Timer
	stood     mono.Pace // lines about lateness
	fused     mono.Pace // lines about the fuse
	stats     LoopStats

	mu     sync.Mutex // guards the following
	posted []func()
	closed bool
}

// NewLoop opens the loop's own descriptors. A nil log discards.
func NewLoop(log *slog.Logger) (*Loop, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{
		log: log, wake: -1, timer: -1,
		now: clock.Now(), due: mono.Never, outgoingFD: -1,
		events: make([]unix.EpollEvent, eventBatch),
		rbuf:   make([]byte, 64<<10), wbuf: make([]byte, 0, 4<<10),
		least: forever, stood: mono.Pace{Every: paceEvery}, fused: mono.Pace{Every: paceEvery},
	}
	if err := l.open(); err != nil {
		l.close()
		return nil, err
	}
	l.stall = l.NewTimer(func() { l.watchStall() })
	return l, nil
}

func (l *Loop) open() (err error) {
	if l.epoll, err = newEpollSet(); err != nil {
		return err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("create eventfd: %w", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("create timerfd on the boot-time clock: %w", err)
	}
	if err = l.add(l.wake, counter(l.wake), unix.EPOLLIN); err != nil {
		return err
	}
	return l.add(l.timer, counter(l.timer), unix.EPOLLIN)
}

// counter is an eventfd or timerfd: reading resets it.
type counter int

func (c counter) ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(int(c), b[:])
}

// Run runs the loop until ctx ends, then closes every socket without a word to
// the peers; call Session.Stop or Listener.StopAll before for a BYE.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.Do(func() {}) })
	defer stop()
	defer l.close()
	for ctx.Err() == nil {
		if err := l.pass(); err != nil {
			return err
		}
	}
	return nil
}

// Do runs fn on the loop goroutine in its next pass. It may be called from any
// goroutine and never blocks. After Run has ended fn is dropped.
func (l *Loop) Do(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.posted = append(l.posted, fn)
	if len(l.posted) == 1 {
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Now returns the instant by which the present pass judges.
func (l *Loop) Now() mono.Instant { return l.now }

func (l *Loop) pass() error {
	n, err := l.wait()
	if err != nil {
		return err
	}
	start := clock.Now()
	l.noteHurry(start)
	l.now = start
	l.noteLateness(start)
	for {
		l.dispatch(n)
		if n, err = l.epoll.look(l.events); err != nil {
			return err
		}
		if n < len(l.events) {
			l.dispatch(n)
			break
		}
	}
	l.runPosted()
	l.now = start
	l.expire(start)
	l.flushPackets()
	return l.arm()
}

// Bounds of gathering.
const (
	gatherPerSession = time.Microsecond
	gatherLeast      = 200 * time.Microsecond // less is not worth a system call
	gatherMost       = 3 * time.Millisecond
)

// gatherFor is how far apart the passes of a loop with many sessions are kept, so
// that each finds several datagrams to read and several beats to send: a wake-up
// costs more than a beat. It never reaches what a verdict may be late.
func gatherFor(sessions int, shortest time.Duration) time.Duration {
	d := min(time.Duration(sessions)*gatherPerSession, gatherMost, shortest/64)
	if d < gatherLeast {
		return 0
	}
	return d
}

// wait waits for events: until the last pass is long enough ago, then for the first.
func (l *Loop) wait() (int, error) {
	if !l.busy() {
		return l.epoll.park(l.events)
	}
	apart := gatherFor(len(l.sessions), l.least)
	if rest := l.began.Add(apart).Sub(clock.Now()); rest > 0 {
		// So short that the scheduler is not told of it: it would look for other work
		// and wake a thread each time. A signal that cuts it short does no harm.
		ts := unix.NsecToTimespec(int64(rest))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	return l.epoll.block(l.events)
}

// busy reports whether blocking costs less than parking (epollSet): there are many
// sessions, or the last passes have all come at once after the one before, as in a flood.
func (l *Loop) busy() bool {
	return l.hurry == hurryMost || gatherFor(len(l.sessions), l.least) > 0
}

// A pass comes at once when it begins within hurryMoment after the one before; so many
// in a row make a busy loop.
const (
	hurryMoment = time.Millisecond
	hurryMost   = 8
)

// noteHurry begins a pass.
func (l *Loop) noteHurry(start mono.Instant) {
	if start.Sub(l.began) < hurryMoment {
		l.hurry = min(l.hurry+1, hurryMost)
	} else {
		l.hurry = 0
	}
	l.began = start
}

func (l *Loop) dispatch(n int) {
	for _, ev := range l.events[:n] {
		if fd := int(ev.Fd); fd < len(l.fds) && l.fds[fd].src != nil && l.fds[fd].gen == ev.Pad {
			l.fds[fd].src.ready(ev.Events)
		}
	}
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	fns := l.posted
	l.posted = nil
	l.mu.Unlock()
	l.now = clock.Now()
	for _, fn := range fns {
		fn()
	}
}

// expire fires all timers that are due at now. A fired timer that is set anew to
// an instant not after now waits for the next pass, so no timer can starve the
// sockets.
func (l *Loop) expire(now mono.Instant) {
	weighed := false
	for range len(l.timers) + 1 {
		first := l.timers.first()
		if first.at.After(now) {
			return
		}
		if !weighed && first.t.verdictDue(now) {
			weighed = true
			l.weighFuses(now)
			continue
		}
		l.fire(first.t)
	}
}

// fire calls the function of the first timer, which is not set any more. It keeps
// its place in the heap for the while: most are set anew at once, and that is half
// the work then.
func (l *Loop) fire(t *Timer) {
	l.firing = t
	t.fire.expired()
	if l.firing == t {
		t.Stop()
	}
}

// arm sets the timerfd to the earliest timer.
func (l *Loop) arm() error {
	due := l.timers.first().at
	if due == l.due && due.After(clock.Now()) {
		return nil
	}
	l.due = due
	var spec unix.ItimerSpec
	if due != mono.Never {
		spec.Value = unix.NsecToTimespec(max(int64(due), 1))
	}
	if err := unix.TimerfdSettime(l.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("set timerfd: %w", err)
	}
	return nil
}

// noteLateness tells the sessions by how much this pass is late. The stall timer
// sees to it that a timer is never further away than an eighth of the shortest
// timeout, so that a pause cannot hide between two distant timers.
func (l *Loop) noteLateness(now mono.Instant) {
	if l.due == mono.Never || !now.After(l.due) {
		return
	}
	late := now.Sub(l.due)
	if late <= l.least/4 {
		return
	}
	l.stats.Stalls++
	if more, ok := l.stood.Note(now); ok {
		l.log.Warn("this process stood still: nobody is judged for that silence",
			"late", late.Round(time.Millisecond), "sessions", len(l.sessions), "more_since_last", more)
	}
	for _, s := range slices.Clone(l.sessions) {
		s.step(func(out *heartbeat.Output) { s.m.Paused(now, late, out) })
	}
}

// forever is the shortest timeout of no sessions.
const forever = time.Duration(math.MaxInt64)

// stallLeast bounds how often the stall timer wakes an idle loop.
const stallLeast = 5 * time.Millisecond

// watchStall keeps a timer near while there are sessions.
func (l *Loop) watchStall() {
	if l.stale {
		l.least, l.stale = forever, false
		for _, s := range l.sessions {
			l.least = min(l.least, s.timeout())
		}
	}
	if len(l.sessions) > 0 {
		l.stall.Set(l.now.Add(max(l.least/8, stallLeast)))
	}
}

// join and drop keep the set of sessions.
func (l *Loop) join(s *Session) {
	s.slot = int32(len(l.sessions))
	l.sessions = append(l.sessions, s)
	if len(l.sessions) == 1 || s.timeout() < l.least {
		l.least = min(l.least, s.timeout())
		l.watchStall()
	}
}

// drop forgets a session that has ended for good.
func (l *Loop) drop(s *Session) {
	s.timer.Stop()
	if s.slot < 0 {
		return
	}
	last := l.sessions[len(l.sessions)-1]
	l.sessions[s.slot], last.slot = last, s.slot
	l.sessions[len(l.sessions)-1] = nil
	l.sessions = l.sessions[:len(l.sessions)-1]
	s.slot = -1
	l.stale = true
}

func (l *Loop) add(fd int, src source, events uint32) error {
	l.gen++
	for fd >= len(l.fds) {
		l.fds = append(l.fds, registered{})
	}
	l.fds[fd] = registered{src: src, gen: l.gen}
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.gen}
	if err := unix.EpollCtl(l.epoll.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("add descriptor to epoll set: %w", err)
	}
	return nil
}

func (l *Loop) modify(fd int, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.fds[fd].gen}
	_ = unix.EpollCtl(l.epoll.fd, unix.EPOLL_CTL_MOD, fd, &ev)
}

// closeFD closes a descriptor of the set; the kernel takes it out of the set.
func (l *Loop) closeFD(fd int) {
	if fd == l.outgoingFD {
		l.flushPackets()
	}
	l.fds[fd] = registered{}
	_ = unix.Close(fd)
}

func (l *Loop) close() {
	l.mu.Lock()
	l.closed, l.posted = true, nil
	l.mu.Unlock()
	for fd, r := range l.fds {
		if r.src != nil {
			l.closeFD(fd)
		}
	}
	for _, ln := range l.listeners {
		ln.closeSpare()
	}
	if l.epoll != nil {
		l.epoll.close()
	}
}

// output borrows an Output; handlers may cause further machine calls while one
// is being carried out, so there can be several.
func (l *Loop) output() *heartbeat.Output {
	if n := len(l.outs); n > 0 {
		out := l.outs[n-1]
		l.outs = l.outs[:n-1]
		return out
	}
	return new(heartbeat.Output)
}

func (l *Loop) release(out *heartbeat.Output) {
	out.Reset()
	l.outs = append(l.outs, out)
}
