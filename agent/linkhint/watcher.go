// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
)

// Config is what a Watcher needs to know.
type Config struct {
	// BPF says that the caller may have the rights for fentry and kprobe; conmgr,
	// which has none, leaves them out of its ladder and is not told that they miss.
	BPF bool
	// Without are sources to pass over: what an operator has switched off, and how a
	// test or a measurement chooses one.
	Without []Source
	// OnPath is called with each change of a watched path, OnEvent (may be nil) with
	// each event of any device of the namespace. Both are called on the Watcher's
	// goroutine and must not block.
	OnPath  func(Path)
	OnEvent func(Event)
	Log     *slog.Logger // nil discards
}

// Watcher watches links and the ways to peers. Create it with [New].
type Watcher struct{}

// New opens the best source that works and reads the present state, so that
// Source and Missing can be asked at once. It fails only when rtnetlink itself does
// not work. Close, or the end of Run, gives everything back.
func New(cfg Config) (*Watcher, error) { return nil, errors.New("linkhint: not written yet") }

// Run watches until ctx ends. It returns nil then.
func (w *Watcher) Run(ctx context.Context) error { return nil }

// Watch asks for the changes of the way to a peer; a link-local address has its
// zone. Each call wants one Unwatch. A path that is not good already is told at
// once. May be called from any goroutine; it never blocks.
func (w *Watcher) Watch(peer netip.Addr) {}

// Unwatch takes one Watch back. Nothing is told of the peer after the last one,
// but for what is under way.
func (w *Watcher) Unwatch(peer netip.Addr) {}

// Source returns the source of carrier events in use.
func (w *Watcher) Source() Source { return Rtnetlink }

// Missing returns the better sources that do not work here, best first, with why.
func (w *Watcher) Missing() []Missing { return nil }

// Close gives back what New has opened, when Run is not called.
func (w *Watcher) Close() error { return nil }
