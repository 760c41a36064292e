// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	// handshakeTimeout bounds the time from accept to an armed session.
	handshakeTimeout = 10 * time.Second
	// maxHalfOpen bounds how many connections may be shaking hands.
	maxHalfOpen = 256
	// relistenSoon is the pause before listening is tried again; it doubles up to
	// relistenEvery, and nobody is told before that. An address that was given up a
	// moment ago is in use until the service manager has closed its copy too
	// (peer.SocketKeeper).
	relistenSoon  = 50 * time.Millisecond
	relistenEvery = time.Second
)

// gate is the loop's side of the watchdog: it admits sessions, feeds the docket
// with how they end, and carries out what the docket orders. All of it belongs
// to the loop goroutine but admission, which is replaced as a whole.
type gate struct {
	server   *server
	log      *slog.Logger
	listener *peer.Listener
	docket   *Docket
	timer    *peer.Timer // the docket's Next
	relisten *peer.Timer
	persist  *peer.Timer // the armed sessions are to be kept
	settled  *peer.Timer // no client has come or gone for a while
	crowd    int         // how many there were then
	orders   []*Orders   // free ones
	seekers  map[*peer.Session]struct{}
	earlier  ArmedSet // of the last run, until it is restored or discarded
	stopping bool
	seen     bool // the instance was looked at once
	want     []netip.AddrPort
	retryIn  time.Duration // relisten's pause; 0: it listens on all that it wants
	bound    string        // what was logged last about listening
	refusals refusals
	hush     hush
	paused   *Pause // nil: kills are allowed
	counted  counters
	resumer  string // who asks for the end of the pause, while that is carried out

	admission atomic.Pointer[Admission]
}

func newGate(s *server, id wire.ID) *gate {
	g := &gate{server: s, log: s.log, docket: NewDocket(DefaultPolicy()),
		seekers: map[*peer.Session]struct{}{}, counted: newCounters(), earlier: s.keeper.load()}
	g.timer = s.loop.NewTimer(g.tick)
	g.relisten = s.loop.NewTimer(func() { g.listen(g.want) })
	g.persist, g.settled = s.loop.NewTimer(g.keep), s.loop.NewTimer(g.settle)
	g.refusals.log, g.hush.log = s.log, s.log
	g.listener = s.loop.Listen(peer.ListenConfig{
		Self: id, Incarnation: uint64(time.Now().UnixNano()), NewSession: newSessionIDs(),
		HandshakeTimeout: handshakeTimeout, HalfOpen: maxHalfOpen, Keeper: s.options.Sockets,
	}, g)
	if err := g.listener.Inherit(s.options.Inherited); err != nil {
		s.log.Warn("a descriptor of the last run is of no use", "err", err)
	}
	own, err := OwnPrefixes()
	if err != nil {
		s.log.Error("cannot read the host's addresses: clients of the own networks may be refused", "err", err)
	}
	g.admission.Store(&Admission{Own: own})
	g.configure(s.config())
	g.restorePause()
	return g
}

// configure applies a configuration.
func (g *gate) configure(c *Config) {
	adm := *g.admission.Load()
	adm.Clients, adm.Protect = c.Clients, c.Protect
	adm.MinInterval, adm.MaxTimeout = c.MinHeartbeatInterval, c.MaxHeartbeatTimeout
	adm.Sessions = c.MaxHeartbeatConnections
	g.admission.Store(&adm)
	g.docket.SetPolicy(c.policy(g.protects))
}

// own takes the host's present addresses.
func (g *gate) own(prefixes []netip.Prefix) {
	adm := *g.admission.Load()
	adm.Own = prefixes
	g.admission.Store(&adm)
}

// protects may be called from any goroutine.
func (g *gate) protects(a netip.Addr) bool { return g.admission.Load().Protects(a) }

// setRing sets the keys that are required from now on, nil for none.
func (g *gate) setRing(ring *key.Ring) {
	g.listener.SetRing(ring)
	if g.want != nil {
		g.listen(g.want) // UDP comes or goes with the keys
	}
}

// listen listens on the addresses, and tries again while that fails.
func (g *gate) listen(want []netip.AddrPort) {
	if g.stopping {
		return
	}
	g.want = want
	if err := g.listener.SetAddrs(want); err != nil {
		g.retryIn = min(max(2*g.retryIn, relistenSoon), relistenEvery)
		g.relisten.Set(g.server.loop.Now().Add(g.retryIn))
		if g.retryIn == relistenEvery && g.bound != err.Error() {
			g.bound = err.Error()
			g.log.Error("cannot serve heartbeats on every address", "err", err,
				"expected", "own addresses in watchdog.listen_addresses, and a free watchdog.port")
		}
		return
	}
	g.relisten.Stop()
	g.retryIn = 0
	if key := fmt.Sprint(want); g.bound != key {
		g.bound = key
		g.log.Info("serving heartbeats", "local", want)
	}
	g.checkReady()
}

// listenAddrs resolves addresses, names and "*" as PostgreSQL's listen_addresses
// does.
func listenAddrs(words []string, port uint16) ([]netip.AddrPort, error) {
	var addrs []netip.AddrPort
	var failed error
	add := func(a netip.Addr) { addrs = append(addrs, netip.AddrPortFrom(a.Unmap(), port)) }
	for _, w := range words {
		if w == "*" {
			add(netip.IPv4Unspecified())
			add(netip.IPv6Unspecified())
			continue
		}
		if a, err := netip.ParseAddr(w); err == nil {
			add(a)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", w)
		cancel()
		if err != nil {
			failed = err
		}
		for _, a := range found {
			add(a)
		}
	}
	return addrs, failed
}

// instance takes a new state: every beat carries it from now on.
func (g *gate) instance(i wire.Instance) {
	g.listener.SetInstance(i)
	g.server.publisher.setInstance(i.StartUS, killsWord(i))
	if i.Status == wire.StatusUnknown {
		return
	}
	g.seen = true
	if i.StartUS != 0 {
		g.restore(i.StartUS)
	}
	g.checkReady()
	if g.server.keeper.postmaster(i.StartUS) {
		g.keep()
	}
}

func (g *gate) checkReady() {
	if g.seen && len(g.listener.Addrs()) > 0 {
		g.listener.DropInherited()
		g.server.ready()
	}
}

// restore takes over the clients that the last run of the agent knew, as soon as
// it is known which postmaster this is.
func (g *gate) restore(startUS int64) {
	set := g.earlier
	g.earlier = ArmedSet{}
	if len(set.Records) == 0 {
		return
	}
	if why := set.Discard(g.server.keeper.bootID, startUS); why != "" {
		g.log.Info("sessions of the last run are of no use", "why", why, "sessions", len(set.Records))
		return
	}
	g.order(func(now mono.Instant, out *Orders) { g.docket.Restore(now, set.Records, out) })
}

// Admit implements peer.Acceptor.
func (g *gate) Admit(remote netip.AddrPort, hello *wire.Hello, keyed bool, c peer.Counts) peer.Admission {
	code, limit, protected := g.admission.Load().Admit(remote.Addr(), hello, keyed, Counts{Sessions: c.Total, PerAddress: c.OfAddress})
	if code != 0 {
		why, hint := refusalText(code)
		g.refusals.note(g.server.loop.Now(), remote.Addr(), why, hint, limit)
	}
	ended := hello.Resumes != 0 && g.docket.Terminated(remote.Addr(), hello.Conmgr)
	return peer.Admission{Code: code, Limit: limit, Protected: protected, Ended: ended}
}

// TurnedAway implements peer.Acceptor.
func (g *gate) TurnedAway(remote netip.AddrPort, err error) {
	why, hint := turnedAwayText(err)
	g.refusals.note(g.server.loop.Now(), remote.Addr(), why, hint, 0)
}

// Changed implements peer.Handler.
func (g *gate) Changed(s *peer.Session, c heartbeat.Change) {
	g.logChange(s, c)
	g.server.publisher.changed.Store(true)
	if g.stopping {
		return // our own goodbyes are nobody's end
	}
	session := s.ID()
	switch {
	case c.From == wire.StateInit && c.To == wire.StateUp:
		id, incarnation := s.Conmgr()
		client, timers := Client{Addr: s.Remote().Addr(), Conmgr: id, Incarnation: incarnation}, s.Machine().Config()
		g.order(func(now mono.Instant, out *Orders) {
			g.docket.Armed(now, session, client, timers.Timeout, timers.Interval, s.Protected, out)
		})
	case c.Verdict():
		g.counted.verdicts[c.Reason]++
		g.server.life.ended(s.Remote().Addr(), s.KernelLife())
		g.order(func(now mono.Instant, out *Orders) { g.docket.Ended(now, session, c, out) })
	}
	if c.To == wire.StateDown {
		g.seek(s, false)
	}
}

// logChange logs what an operator wants to know: sessions that come, go, or are
// in doubt.
func (g *gate) logChange(s *peer.Session, c heartbeat.Change) {
	level := slog.LevelInfo
	switch {
	case c.From == wire.StateInit && c.To == wire.StateDown:
		level = slog.LevelDebug
	case c.To == wire.StateLate || c.Reason == wire.ReasonHeard:
		level = slog.LevelDebug // a lossy path does that all the time; the counters tell
	case c.Reason == wire.ReasonOwnPause || c.Reason == wire.ReasonFuse || c.Reason == wire.ReasonHint:
		level = slog.LevelDebug // said once for all sessions, by the loop or by who watches links
	case c.Verdict() && (c.Reason == wire.ReasonTimeout || c.Reason == wire.ReasonLinkDown):
		level = slog.LevelWarn
	}
	if level >= slog.LevelInfo && !g.hush.tell(g.server.loop.Now(), s.Remote().Addr()) {
		return
	}
	g.log.Log(context.Background(), level, "session", "remote", s.Remote(), "session", s.ID(),
		"from", c.From, "to", c.To, "why", c.Reason, "silence", c.Silence.Round(time.Millisecond))
}

// Told implements peer.Handler: a conmgr's signals have changed.
func (g *gate) Told(s *peer.Session) {
	if s.Machine().Signals()&wire.FlagSlow != 0 {
		g.server.monitor.SlowConnect()
	}
	g.seek(s, s.Machine().Signals()&wire.FlagSeek != 0)
}

// seek notes whether a conmgr waits for a primary, and tells the monitor whether
// any does.
func (g *gate) seek(s *peer.Session, seeks bool) {
	before := len(g.seekers) > 0
	if seeks {
		g.seekers[s] = struct{}{}
	} else {
		delete(g.seekers, s)
	}
	if after := len(g.seekers) > 0; after != before {
		g.server.monitor.Fast(after)
	}
}

// Refused implements peer.Handler; a conmgr refuses nothing.
func (g *gate) Refused(*peer.Session, wire.Refuse, bool) {}

// Broken implements peer.Handler.
func (g *gate) Broken(s *peer.Session, err error) {
	g.log.Debug("heartbeat connection ended", "remote", s.Remote(), "session", s.ID(), "err", err)
}

func (g *gate) tick() {
	g.order(func(now mono.Instant, out *Orders) { g.docket.Tick(now, out) })
}

func (g *gate) done(r Result) {
	g.counted.result(&r)
	g.order(func(now mono.Instant, out *Orders) {
		if r.Outcome == OutcomeHostAlive {
			g.docket.Alive(now, r.Warrant.ID, out)
			return
		}
		g.docket.Done(now, r.Warrant.ID, out)
	})
}

// order calls the docket and carries out its orders.
func (g *gate) order(call func(now mono.Instant, out *Orders)) {
	out := new(Orders)
	if n := len(g.orders); n > 0 {
		out, g.orders = g.orders[n-1], g.orders[:n-1]
	}
	call(g.server.loop.Now(), out)
	for _, id := range out.Close {
		g.server.terminator.Cancel(id)
	}
	for _, w := range out.Execute {
		g.server.terminator.Execute(w)
	}
	for _, e := range out.Events {
		g.report(e)
	}
	if out.Persist && !g.persist.Pending() {
		g.persist.Set(g.server.loop.Now().Add(time.Duration(g.docket.Len()) * keepPerClient))
	}
	out.Reset()
	g.orders = append(g.orders, out)
	g.timer.Set(g.docket.Next())
}

// report logs what the docket decided and keeps it as an event, unless there is
// too much of it; a warrant always.
func (g *gate) report(e DocketEvent) {
	if e.Kind == DocketPaused || e.Kind == DocketResumed {
		g.reportPause(e)
		return
	}
	if e.Kind == DocketSuspended {
		g.counted.warrants[OutcomePaused]++
	}
	if e.Kind != DocketWarrant && e.Addr.IsValid() && !g.hush.tell(g.server.loop.Now(), e.Addr) {
		return
	}
	level := slog.LevelInfo
	if e.Kind == DocketWarrant && e.Case != CaseShutdown || e.Kind == DocketOverflow || e.Kind == DocketSuspended {
		level = slog.LevelWarn // but a stopped conmgr is everyday life
	}
	args := []any{"peer", e.Addr, "session", e.Session, "case", e.Case, "why", e.Reason,
		"silence", e.Silence.Round(time.Millisecond)}
	if e.Warrant != 0 {
		args = append(args, "warrant", e.Warrant, "dry_run", e.DryRun)
	}
	if !e.Until.IsZero() && e.Until != mono.Never {
		args = append(args, "for", e.Until.Sub(e.At).Round(time.Millisecond))
	}
	g.log.Log(context.Background(), level, e.Kind.String(), args...)
	g.server.keeper.event(e)
}

// keepPerClient paces the saving of the armed sessions: it costs about a tenth of
// this for each of them, so that it never takes more than a tenth of the loop.
const keepPerClient = 10 * time.Microsecond

// keep hands the armed sessions to the keeper.
func (g *gate) keep() {
	g.persist.Stop()
	g.server.keeper.save(append(g.docket.Records(), g.earlier.Records...))
	g.settled.Set(g.server.loop.Now().Add(settleAfter))
}

const (
	settleAfter = 5 * time.Second
	crowdLeast  = 1000
)

// settle gives memory back after a crowd of clients has come or gone: what their
// coming took beside what they keep would stay with the process for hours.
func (g *gate) settle() {
	now := g.docket.Len()
	if max(now-g.crowd, g.crowd-now) < crowdLeast {
		return
	}
	g.crowd = now
	go debug.FreeOSMemory()
}

// stop says BYE to every session.
func (g *gate) stop() {
	if g.persist.Pending() {
		g.keep()
	}
	g.stopping = true
	g.listener.StopAll(wire.ByeRestart)
}
