// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// carrierEvent is what a source saw: a hint that the Watcher confirms.
type carrierEvent struct {
	index int
	name  string
	lost  bool         // or came back
	at    mono.Instant // the kernel's time
}

// carrierSource tells of carriers by itself, of any device of this namespace.
type carrierSource interface {
	kind() Source
	// events is closed when the source cannot go on.
	events() <-chan carrierEvent
	// overrun tells that something was dropped: all is read again.
	overrun() <-chan struct{}
	// close gives everything back and ends the source's goroutines.
	close() error
}

var errSourceEnded = errors.New("it has ended")

// opener opens the best BPF source that works, nil when none does, and says what
// is missing for the better ones. The sources to pass over are not missing.
type opener func(log *slog.Logger, without []Source) (carrierSource, []Missing)

// openSources goes down the ladder until one works. A counter below a BPF source
// is opened as well, in the namespace of this thread, for when that one ends.
func (w *Watcher) openSources(open opener) {
	if w.cfg.BPF {
		w.hints, w.missing = open(w.log, w.cfg.Without)
	}
	counter, missing := w.openCounter()
	switch {
	case w.hints != nil:
		w.source, w.spare = w.hints.kind(), counter
	case counter != nil:
		w.source, w.counter = Counter, counter
	default:
		w.source, w.missing = Rtnetlink, append(w.missing, missing...)
	}
}

// openCounter returns nil when it does not work, and why.
func (w *Watcher) openCounter() (*counter, []Missing) {
	if slices.Contains(w.cfg.Without, Counter) {
		return nil, nil
	}
	dir, err := openClass(sysClassNet, w.kernel)
	if err != nil {
		return nil, []Missing{{Source: Counter, Err: err, Hint: counterHint}}
	}
	c, err := newCounter(dir)
	if err != nil {
		return nil, []Missing{{Source: Counter, Err: err, Hint: "allow this process more open files"}}
	}
	return c, nil
}

// replaceSource goes down the ladder when a source ends while it runs.
func (w *Watcher) replaceSource() {
	ended, to := w.hints.kind(), Rtnetlink
	err := w.hints.close()
	w.hints, w.counter, w.spare = nil, w.spare, nil
	if w.counter != nil {
		to = Counter
	}
	clear(w.doubts)
	w.doubtTime.Stop()
	w.mu.Lock()
	w.source = to
	w.missing = append(w.missing, Missing{Source: ended, Err: errSourceEnded, Hint: "restart to open it again"})
	w.mu.Unlock()
	w.log.Warn("a source of link events has ended", "from", ended.String(), "to", to.String(), "err", errors.Join(errSourceEnded, err))
	w.polling.stale = true
	w.readAll() // what happened in between
}

// announce says once what is used, and what would be better.
func (w *Watcher) announce() {
	w.log.Info("links are watched", "source", w.Source().String())
	for _, m := range w.Missing() {
		w.log.Info("a better source of link events is missing", "source", m.Source.String(), "err", m.Err, "hint", m.Hint)
	}
}
