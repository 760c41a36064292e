// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// maxLooks is how often the sockets of a warrant are looked for: a dump can miss
// some (see sockdiag), and a client that is back opens new ones without end.
const maxLooks = 5

// freshLook is for how long the last look's dump serves as the first find, too:
// each walks over the machine's whole table of sockets, a millisecond or more.
const freshLook = 5 * time.Millisecond

// socketTable is the kernel's; see [sockdiag.Conn].
type socketTable interface {
	Find(context.Context, sockdiag.Filter) ([]sockdiag.Socket, error)
	Destroy(context.Context, []sockdiag.Socket) ([]sockdiag.Outcome, error)
	Close() error
}

// peerSockets is what the terminator does with the kernel: the last look (step
// 0), find and destroy (steps 1 and 2). But for prove it belongs to the
// terminator's goroutine.
type peerSockets struct {
	dial  func() (socketTable, error)
	scope func() scope
	own   func() []netip.AddrPort            // client ends of the agent's own connections
	heard func(addr netip.Addr) mono.Instant // see lifeSigns
	log   *slog.Logger
	fresh time.Duration // freshLook

	latest dump
	table  socketTable // nil while there is none
	// unable is why no socket can be destroyed, as long as the agent runs.
	unable error
	// proof is what the last try said, for whoever asks; nil before the first.
	proof atomic.Pointer[error]
}

// dump is what the last look of a warrant found.
type dump struct {
	warrant uint64
	after   mono.Instant // it was complete
	found   []sockdiag.Socket
}

// errOddTable is an answer that no kernel gives.
var errOddTable = errors.New("fewer outcomes than sockets")

// prove finds out at the start whether sockets can be destroyed, and says so if
// not.
func (p *peerSockets) prove(ctx context.Context, try func(context.Context) error) {
	err := try(ctx)
	p.proof.Store(&err)
	if err != nil {
		p.cannot(err)
	}
}

// cannot gives the socket step up, with one warning, when the error will not go
// away by itself.
func (p *peerSockets) cannot(err error) {
	hint := SocketsAdvice(err)
	switch {
	case p.unable != nil:
		return
	case hint == "":
		p.log.Warn("cannot tell whether sockets of dead clients can be destroyed", "err", err)
		return
	}
	p.unable = err
	p.proof.Store(&err)
	p.log.Warn("sockets of dead clients cannot be destroyed: their sessions are terminated all the same, clients of watchdog.ports stay",
		"err", err, "hint", hint)
}

// SocketsAdvice says what an operator can do when sockets cannot be destroyed; it is
// empty for an error that may go away by itself.
func SocketsAdvice(err error) string {
	switch {
	case errors.Is(err, sockdiag.ErrNotPermitted):
		return "let the agent have CAP_NET_ADMIN (AmbientCapabilities= of systemd)"
	case errors.Is(err, sockdiag.ErrNotSupported):
		return "a kernel with CONFIG_INET_DIAG_DESTROY"
	}
	return ""
}

// LastLook is step 0: what all TCP sockets of the host, the heartbeat's
// included, say about when it was heard last.
func (p *peerSockets) LastLook(ctx context.Context, w Warrant) (Evidence, error) {
	heartbeat := p.heard(w.Addr)
	looked := clock.Now()
	f, err := sockdiag.PeerFilter(w.Addr)
	if err != nil {
		return weigh(&w, nil, heartbeat, looked), err
	}
	f.States, f.Info = lookStates, true
	found, err := p.find(ctx, f)
	if err == nil {
		p.latest = dump{w.ID, clock.Now(), found}
	}
	return weigh(&w, found, heartbeat, looked), err
}

// take hands out the dump of the warrant's last look, once and if it is fresh.
func (p *peerSockets) take(warrant uint64) (d dump, ok bool) {
	d, p.latest = p.latest, dump{}
	return d, d.warrant == warrant && clock.Now().Sub(d.after) < p.fresh
}

// Destroy implements [Sockets].
func (p *peerSockets) Destroy(ctx context.Context, w Warrant, walsenders []uint16) (SocketsResult, error) {
	if p.unable != nil && !w.DryRun {
		return SocketsResult{Text: p.unable.Error()}, nil
	}
	peer, err := sockdiag.PeerFilter(w.Addr)
	if err != nil {
		return SocketsResult{}, err
	}
	scope := p.scope()
	d := decree{verdict: w.Verdict, walsenders: walsenders}
	if len(scope.listens) > 0 {
		listening, err := p.find(ctx, scope.listenFilter())
		if err != nil {
			return SocketsResult{}, err
		}
		d.reach = scope.reach(listening)
	} else {
		d.reach = scope.reach(nil)
	}
	if d.reach.empty() {
		return SocketsResult{Text: "the instance listens on no known address"}, nil
	}
	f := d.reach.filter(peer)
	f.States, f.Info = sockdiag.Killable, true
	round := &socketRound{p: p, filter: f, decree: d, dryRun: w.DryRun, seen: make(map[uint64]bool)}
	err = round.run(ctx, w.ID)
	round.result.Text = round.text()
	return round.result, err
}

// find asks the kernel, on a new connection when there is none. One that failed
// is given up: the next question opens another.
func (p *peerSockets) find(ctx context.Context, f sockdiag.Filter) ([]sockdiag.Socket, error) {
	if p.table == nil {
		table, err := p.dial()
		if err != nil {
			return nil, err
		}
		p.table = table
	}
	found, err := p.table.Find(ctx, f)
	if err != nil {
		p.close()
	}
	return found, err
}

func (p *peerSockets) close() {
	if p.table != nil {
		_ = p.table.Close()
		p.table = nil
	}
}

// socketRound is one execution of steps 1 and 2.
type socketRound struct {
	p      *peerSockets
	filter sockdiag.Filter
	decree decree
	dryRun bool
	seen   map[uint64]bool // cookies of those that were counted
	result SocketsResult
	failed error // of the last socket that could not be destroyed
}

// run looks and destroys until a look finds nobody left.
func (r *socketRound) run(ctx context.Context, warrant uint64) error {
	seen, fresh := r.p.take(warrant)
	for range maxLooks {
		if !fresh {
			found, err := r.p.find(ctx, r.filter)
			if err != nil {
				return err
			}
			seen = dump{warrant, clock.Now(), found}
		}
		fresh = false
		doomed := r.sentence(seen)
		r.result.Left = len(doomed)
		if len(doomed) == 0 || r.dryRun {
			return nil
		}
		if err := r.destroy(ctx, doomed); err != nil || r.p.unable != nil {
			return err
		}
	}
	return nil
}

// sentence returns those of a dump that are to be destroyed, in its memory.
func (r *socketRound) sentence(seen dump) []sockdiag.Socket {
	found := seen.found
	r.decree.own = r.p.own()
	r.result.Busy, r.result.Spared = 0, 0
	doomed := found[:0]
	for i := range found {
		switch r.decree.fate(&found[i], seen.after) {
		case fateSpared:
			r.result.Spared++
		case fateBusy:
			r.result.Busy++
		case fateDestroy:
			if !r.seen[found[i].Cookie] {
				r.seen[found[i].Cookie] = true
				r.result.Found++
			}
			doomed = append(doomed, found[i])
		}
	}
	return doomed
}

func (r *socketRound) destroy(ctx context.Context, doomed []sockdiag.Socket) error {
	outcomes, err := r.p.table.Destroy(ctx, doomed)
	if err == nil && len(outcomes) != len(doomed) {
		err = errOddTable
	}
	for _, o := range outcomes {
		switch o.Result {
		case sockdiag.Destroyed, sockdiag.Gone:
			r.result.Destroyed++
			r.result.Left--
		case sockdiag.NotPermitted, sockdiag.NotSupported:
			r.failed = o.Err
			r.p.cannot(o.Err)
		case sockdiag.Failed, sockdiag.Refused:
			r.failed = o.Err
		}
	}
	if err != nil {
		r.p.close()
	}
	return err
}

// text is the result for the record.
func (r *socketRound) text() string {
	parts := []string{fmt.Sprintf("%d destroyed", r.result.Destroyed)}
	if r.dryRun {
		parts = []string{fmt.Sprintf("dry run: %d would be destroyed", r.result.Found)}
	} else if r.result.Left > 0 {
		parts = append(parts, fmt.Sprintf("%d left", r.result.Left))
	}
	if r.result.Spared > 0 {
		parts = append(parts, fmt.Sprintf("%d spared", r.result.Spared))
	}
	if r.result.Busy > 0 {
		parts = append(parts, fmt.Sprintf("%d heard since the verdict", r.result.Busy))
	}
	if r.failed != nil {
		parts = append(parts, r.failed.Error())
	}
	return strings.Join(parts, ", ")
}
