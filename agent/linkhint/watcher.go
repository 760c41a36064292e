// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Config is what a Watcher needs to know.
type Config struct {
	// BPF says that the caller may have the rights for fentry and kprobe; conmgr,
	// which has none, leaves them out of its ladder and is not told that they miss.
	BPF bool
	// Without are sources to pass over: what an operator has switched off, and how a
	// test or a measurement chooses one. They do not count as missing. Rtnetlink
	// cannot be passed over.
	Without []Source
	// All says that the counter looks at every device that is up, not only at those
	// on the way to a watched peer: for who wants to see all events.
	All bool
	// OnPaths is called with the watched paths that have changed together, OnEvent with
	// each event of any device of the namespace; both may be nil. Both are called on
	// the Watcher's goroutine and must not block.
	OnPaths func([]Path)
	OnEvent func(Event)
	Log     *slog.Logger // nil discards
}

// Watcher watches links and the ways to peers. Create it with [New].
type Watcher struct {
	cfg Config
	log *slog.Logger

	figures  *figures
	closing  sync.Once
	closeErr error
	wake     chan struct{} // requests wait

	mu sync.Mutex // guards the following
	// requests wait for the goroutine of Run; nil after its end.
	requests []request
	ended    bool
	source   Source
	missing  []Missing

	// The following belong to the goroutine of Run.
	kernel  *kernel
	rt      *subscription
	hints   carrierSource // nil: no BPF
	counter *counter      // nil: not in use
	spare   *counter      // takes over when hints end
	table   *table

	told      mono.Pace     // lines about paths
	doubts    map[int]doubt // hints that the kernel's state does not confirm yet
	doubtTime *time.Timer
	round     round
	polling   polling
}

// request is a Watch, or an Unwatch.
type request struct {
	peer netip.Addr
	end  bool
}

// New opens the best source that works and reads the present state, so that
// Source and Missing can be asked at once. It fails only when rtnetlink itself does
// not work. Close, or the end of Run, gives everything back. The Watcher belongs
// to the network namespace of the calling thread, and its /sys must be mounted for
// that namespace, else the counter is missing.
func New(cfg Config) (*Watcher, error) { return newWatcher(cfg, openBPF) }

func newWatcher(cfg Config, open opener) (*Watcher, error) {
	w := &Watcher{
		told: mono.Pace{Every: time.Minute, Burst: pathLines},
		cfg:  cfg, log: cfg.Log, wake: make(chan struct{}, 1), table: newTable(), figures: newFigures(),
		doubts: make(map[int]doubt), doubtTime: stopped(),
		round: round{start: stopped()}, polling: polling{warned: make(map[int]bool), stale: cfg.All},
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if err := w.openRtnetlink(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.openSources(open)
	return w, nil
}

// stopped makes a timer that does not fire until its first Reset.
func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// openRtnetlink subscribes before it reads, so that nothing falls in between.
func (w *Watcher) openRtnetlink() (err error) {
	if w.rt, err = subscribe(); err != nil {
		return err
	}
	if w.kernel, err = openKernel(); err != nil {
		return err
	}
	devices, err := w.kernel.devices()
	for _, d := range devices {
		w.table.setDevice(d, Event{})
	}
	return err
}

// Run watches until ctx ends, and returns nil then. It is called once. It fails
// when the kernel cannot be read any more, which no kernel is known to do.
func (w *Watcher) Run(ctx context.Context) error {
	var reader sync.WaitGroup
	reader.Go(w.rt.run)
	w.announce()
	err := w.loop(ctx)
	w.mu.Lock()
	w.ended, w.requests = true, nil
	w.mu.Unlock()
	err = errors.Join(err, w.Close())
	reader.Wait()
	return err
}

// loop is all that the Watcher does. A case of a nil channel never comes.
func (w *Watcher) loop(ctx context.Context) error {
	defer w.stopTimers()
	for {
		var hints <-chan carrierEvent
		var overrun <-chan struct{}
		if w.hints != nil {
			hints, overrun = w.hints.events(), w.hints.overrun()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
			w.takeRequests()
		case <-w.rt.wake:
			if err := w.takeNews(); err != nil {
				return err
			}
		case hint, ok := <-hints:
			w.takeHint(hint, ok)
		case <-overrun:
			w.readAll()
		case <-w.counted():
			w.takeCounted()
		case <-w.doubtTime.C:
			w.lookAgain()
		case <-w.round.start.C:
			w.startRound()
		case <-w.round.more():
			w.lookUpSome()
		}
		w.choosePolled()
	}
}

func (w *Watcher) stopTimers() {
	w.doubtTime.Stop()
	w.round.start.Stop()
}

// Watch asks for the changes of the way to a peer; a link-local address has its
// zone. Each call wants one Unwatch. A path that is not good already is told at
// once, also when it has been told to another caller of Watch. May be called from
// any goroutine, before Run as well; it never blocks.
func (w *Watcher) Watch(peer netip.Addr) { w.ask(request{peer: peer}) }

// Unwatch takes one Watch back. Nothing is told of the peer after the last one,
// but for what is under way.
func (w *Watcher) Unwatch(peer netip.Addr) { w.ask(request{peer: peer, end: true}) }

func (w *Watcher) ask(r request) {
	w.mu.Lock()
	if !w.ended {
		w.requests = append(w.requests, r)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // it is taken together with those before
	}
}

// Source returns the source of carrier events in use. It changes only when one
// fails while it runs. May be called from any goroutine.
func (w *Watcher) Source() Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.source
}

// Missing returns the better sources that do not work here, best first, with why.
// May be called from any goroutine.
func (w *Watcher) Missing() []Missing {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.missing)
}

// Close gives back what New has opened, when Run is not called. It may be called
// twice, and after Run, but not while it runs.
func (w *Watcher) Close() error {
	w.closing.Do(func() {
		var errs []error
		if w.rt != nil {
			errs = append(errs, w.rt.close())
		}
		if w.kernel != nil {
			w.kernel.close()
		}
		for _, c := range []*counter{w.counter, w.spare} {
			if c != nil {
				errs = append(errs, c.close())
			}
		}
		if w.hints != nil {
			errs = append(errs, w.hints.close())
		}
		w.closeErr = errors.Join(errs...)
	})
	return w.closeErr
}

// tell hands out an event and the paths that it has changed.
func (w *Watcher) tell(e Event, paths []Path) {
	if e.Kind != 0 {
		w.figures.note(e)
		if w.cfg.OnEvent != nil {
			w.cfg.OnEvent(e)
		}
	}
	w.logPaths(paths)
	w.deliver(paths)
}

func (w *Watcher) deliver(paths []Path) {
	if w.cfg.OnPaths != nil && len(paths) > 0 {
		w.cfg.OnPaths(paths)
	}
}

// pathLines bounds the lines in a minute about links that come and go all the time.
const pathLines = 30

// logPaths writes one line for all peers whose paths have changed together.
func (w *Watcher) logPaths(paths []Path) {
	if len(paths) == 0 {
		return
	}
	more, ok := w.told.Note(clock.Now())
	if !ok {
		return
	}
	first := paths[0]
	args := []any{"state", first.State.String(), "peer", first.Peer, "peers", len(paths)}
	level := slog.LevelWarn
	if first.State == Good {
		level = slog.LevelInfo
	}
	if e := first.Cause; e.Kind != 0 {
		args = append(args, "device", e.Name, "what", e.Kind.String(), "source", e.Source.String())
		if e.Latency >= 0 {
			args = append(args, "latency", e.Latency.Round(time.Microsecond))
		}
	} else {
		args = append(args, "what", "route")
	}
	if more > 0 {
		args = append(args, "more_since_last", more)
	}
	w.log.Log(context.Background(), level, "link to peers", args...)
}

// seen is who gave the reason for a look, and when.
type seen struct {
	source Source
	at     mono.Instant // Event.At
	since  mono.Instant // Event.Latency counts from here; zero: the source does not tell
}
