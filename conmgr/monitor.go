// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// monitor is the shell of the fleet: it feeds it with what the heartbeat
// sessions, the doors and the resolver say, and carries out its actions. The
// fleet and all of the following belong to the loop goroutine; only view is
// shared.
type monitor struct {
	cfg      *Config
	log      *slog.Logger
	loop     *peer.Loop
	fleet    *Fleet
	acts     []*Actions // free ones
	watches  []*watch
	ring     *key.Ring // nil without a key file
	timer    *peer.Timer
	figures  *peer.Timer
	resolver *Resolver
	links    *linkhint.Hints // nil: switched off
	signals  wire.Flags
	slowEnd  *peer.Timer
	stopping bool // our own goodbyes say nothing of the instances

	view atomic.Pointer[View]

	// fault ends the applications of an instance, records that, and returns how
	// many. It is called in order from a goroutine of its own, because it takes
	// milliseconds.
	fault func(Fault) int
	// event keeps a line for SHOW EVENTS. May be called from any goroutine.
	event func(Event)
	// learned keeps a system identifier in the directory.
	learned func(uint64)

	faults queue[Fault]
	tasks  sync.WaitGroup // doors and other short-lived goroutines
	ctx    context.Context
}

// watch is one instance: its session and what is asked about it.
type watch struct {
	m        *monitor
	index    int
	backend  Backend
	session  *peer.Session
	refused  string // last refusal and last broken attempt, to log each once
	broken   string
	replaced string       // likewise, but not again when a session is armed between
	hinted   mono.Instant // last line about a refusal that was not proven
	verdicts map[wire.Reason]uint64
}

// newMonitor prepares the sessions to all instances; nothing happens until run.
func newMonitor(cfg *Config, ring *key.Ring, id wire.ID, incarnation, systemID uint64, log *slog.Logger) (*monitor, error) {
	loop, err := peer.NewLoop(log)
	if err != nil {
		return nil, err
	}
	m := &monitor{cfg: cfg, log: log, loop: loop, ring: ring, fleet: NewFleet(fleetConfigOf(cfg), systemID, loop.Now())}
	m.ctx = context.Background()
	m.openLinks()
	m.timer = loop.NewTimer(m.tick)
	m.figures = loop.NewTimer(m.readFigures)
	m.slowEnd = loop.NewTimer(func() { m.signal(m.signals &^ wire.FlagSlow) })
	m.view.Store(m.fleet.View(loop.Now()))
	m.faults.ready = make(chan struct{}, 1)
	m.event = func(Event) {}
	hb := heartbeat.Config{
		Interval: cfg.HeartbeatInterval, Timeout: cfg.HeartbeatTimeout,
		ConnectInterval: cfg.HeartbeatConnectInterval, ConnectTimeout: cfg.HeartbeatConnectTimeout,
		Self: id, Incarnation: incarnation, Datagram: cfg.HeartbeatTransport == "udp",
	}
	hosts := make([]string, len(cfg.Backends))
	for i, b := range cfg.Backends {
		hosts[i] = b.Host
		if b.HostAddr.IsValid() {
			hosts[i] = b.HostAddr.String()
		}
	}
	m.resolver = NewResolver(ResolverConfig{Found: m.found, Log: log}, hosts)
	for i, b := range cfg.Backends {
		w := &watch{m: m, index: i, backend: b, verdicts: make(map[wire.Reason]uint64)}
		for _, reason := range verdictReasons {
			w.verdicts[reason] = 0
		}
		w.session = loop.Dial(peer.DialConfig{Heartbeat: hb, Key: m.key}, netip.AddrPort{}, w)
		m.watches = append(m.watches, w)
		w.pick(false)
	}
	return m, nil
}

// fleetConfigOf is what the fleet goes by.
func fleetConfigOf(cfg *Config) FleetConfig {
	fc := FleetConfig{
		Interval: cfg.HeartbeatInterval, Timeout: cfg.HeartbeatTimeout,
		CloseOnRoleChange: cfg.CloseOnRoleChange, CloseOnStalePrimary: cfg.CloseOnStalePrimary,
		SystemID: cfg.SystemIdentifier, DoorTimeout: doorTimeout, Random: mathrand.Float64,
		// An agent that is not there at the first attempt is asked again.
		Settle: cfg.HeartbeatTimeout + 2*cfg.HeartbeatConnectInterval,
	}
	if cfg.AgentSilenceIsFault {
		fc.AgentSilence = SilenceFault
	}
	for _, b := range cfg.Backends {
		fb := FleetBackend{Number: b.Number, Host: b.Host, Port: b.Port, WatchdogPort: b.WatchdogPort}
		if b.HostAddr.IsValid() {
			fb.HostAddr = b.HostAddr.String()
		}
		fc.Backends = append(fc.Backends, fb)
	}
	return fc
}

// found is called by the resolver, off the loop, when an address came to be
// known or has changed.
func (m *monitor) found(index int, _ netip.Addr) {
	m.loop.Do(func() { m.watches[index].pick(false) })
}

// pick sets the address for the next attempt; failed says that the one before
// was not reached.
func (w *watch) pick(failed bool) {
	m := w.m
	addr, ok := m.resolver.Pick(m.loop.Now(), w.index, failed)
	if !ok {
		return
	}
	w.session.SetAddr(netip.AddrPortFrom(addr, w.backend.WatchdogPort))
	if !heartbeat.Armed(w.session.Machine().State()) {
		m.act(func(_ mono.Instant, out *Actions) { m.fleet.Addr(w.index, addr, out) })
	}
}

// key is the one that the next attempt uses, nil without a key file.
func (m *monitor) key() *key.Key { return m.ring.First() }

// setRing takes the keys of a reload: the next attempt to each watchdog uses its
// first one, sessions go on with theirs.
func (m *monitor) setRing(ring *key.Ring) {
	m.loop.Do(func() { m.ring = ring })
}

// View returns the present picture of all instances.
func (m *monitor) View() *View { return m.view.Load() }

// run runs the heartbeats until ctx ends.
func (m *monitor) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	m.ctx = ctx
	defer m.tasks.Wait()
	defer cancel() // before: also when the loop has ended by an error of its own
	defer m.resolver.Close()
	m.tasks.Go(func() { m.deliver(ctx) })
	if m.links != nil {
		m.tasks.Go(func() { m.links.Run(ctx) })
	}
	m.loop.Do(func() {
		m.readFigures()
		m.tick()
	})
	return m.loop.Run(ctx)
}

// stop says BYE to every watchdog and waits until that is written, or until ctx
// ends, as it does with run.
func (m *monitor) stop(ctx context.Context, kind wire.ByeKind) {
	done := make(chan struct{})
	m.loop.Do(func() {
		m.stopping = true
		for _, w := range m.watches {
			w.session.Stop(kind)
		}
		close(done)
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// act calls the fleet and carries out what it asks for.
func (m *monitor) act(call func(now mono.Instant, out *Actions)) {
	out := new(Actions)
	if n := len(m.acts); n > 0 {
		out, m.acts = m.acts[n-1], m.acts[:n-1]
	}
	call(m.loop.Now(), out)
	m.carryOut(out)
	out.Reset()
	m.acts = append(m.acts, out)
	m.timer.Set(m.fleet.Next())
}

func (m *monitor) carryOut(out *Actions) {
	if out.ViewChanged {
		m.publish()
	}
	for _, f := range out.Faults {
		m.faults.push(f)
	}
	for _, i := range out.AskDoor {
		m.askDoor(i)
	}
	for _, e := range out.Eager {
		m.watches[e.Index].session.SetEager(e.On)
	}
	if out.Learned != 0 {
		id := out.Learned
		m.tasks.Go(func() { m.learned(id) })
	}
	for _, e := range out.Log {
		m.report(e)
	}
}

// publish makes the fleet's picture the one that applications are routed by.
// While no primary is in it, the watchdogs are asked to look often.
func (m *monitor) publish() {
	v := m.fleet.View(m.loop.Now())
	m.view.Store(v)
	seek := wire.FlagSeek
	for i := range v.Instances {
		in := &v.Instances[i]
		if in.Monitoring == Monitored && in.Instance.Status == wire.StatusUp && in.Instance.Attribute == wire.AttributePrimary {
			seek = 0
		}
	}
	m.signal(m.signals&^wire.FlagSeek | seek)
}

func (m *monitor) signal(signals wire.Flags) {
	if signals == m.signals {
		return
	}
	m.signals = signals
	for _, w := range m.watches {
		w.session.Signal(signals)
	}
}

// slowSignal is how long a slow connect is told to the watchdogs.
const slowSignal = 5 * time.Second

// slowConnect asks the instance's watchdog to look at its door. It may be called
// from any goroutine.
func (m *monitor) slowConnect(index int) {
	m.loop.Do(func() {
		m.signals |= wire.FlagSlow
		m.watches[index].session.Signal(m.signals)
		m.slowEnd.Set(m.loop.Now().Add(slowSignal))
	})
}

func (m *monitor) tick() {
	m.act(func(now mono.Instant, out *Actions) { m.fleet.Tick(now, out) })
}

// figuresLeast bounds how often the figures are read.
const figuresLeast = 10 * time.Millisecond

// readFigures hands the sessions' figures to the fleet every interval, and the
// signs of life of the kernels of silent agents' hosts.
func (m *monitor) readFigures() {
	m.act(func(now mono.Instant, out *Actions) {
		for i, w := range m.watches {
			machine := w.session.Machine()
			st := machine.Stats()
			m.fleet.Heard(now, i, Figures{
				RTT: st.RTT, Heard: machine.LastValid(), Lost: st.Lost, Received: st.Received, WAL: machine.Instance().WAL,
			}, out)
			if machine.State() != wire.StateUp {
				if life := w.session.KernelLife(); !life.IsZero() {
					m.fleet.KernelLife(now, i, life, out)
				}
			}
		}
	})
	every := max(min(m.cfg.HeartbeatInterval, time.Second), figuresLeast)
	m.figures.Set(m.loop.Now().Add(every))
}

// Changed implements peer.Handler.
func (w *watch) Changed(s *peer.Session, c heartbeat.Change) {
	if w.m.stopping {
		return
	}
	if c.Verdict() {
		w.verdicts[c.Reason]++
	}
	if c.To == wire.StateUp {
		w.refused, w.broken = "", ""
		w.addr()
	}
	if c.Reason == wire.ReasonReplaced {
		w.complain(&w.replaced, slog.LevelWarn, "watchdog ended the session for a newer one",
			"normal once after its keys changed; else another conmgr of this host has the same conmgr.id: was this directory copied?")
	}
	w.m.act(func(now mono.Instant, out *Actions) {
		if life := s.KernelLife(); !life.IsZero() {
			w.m.fleet.KernelLife(now, w.index, life, out)
		}
		w.m.fleet.Changed(now, w.index, c, out)
	})
	if c.From == wire.StateInit && c.Reason == wire.ReasonNoAnswer {
		w.unreached("no answer: expected pgwatchdog at this address and port, and no firewall in between")
	}
	if c.To == wire.StateDown {
		w.pick(c.From == wire.StateInit)
	}
}

// addr tells the fleet the very address that the live heartbeat uses.
func (w *watch) addr() {
	w.m.act(func(_ mono.Instant, out *Actions) {
		w.m.fleet.Addr(w.index, w.session.Remote().Addr(), out)
	})
}

// Told implements peer.Handler.
func (w *watch) Told(s *peer.Session) {
	w.m.act(func(now mono.Instant, out *Actions) {
		w.m.fleet.Instance(now, w.index, s.Machine().Instance(), out)
	})
}

// Broken implements peer.Handler.
func (w *watch) Broken(s *peer.Session, err error) {
	if heartbeat.Armed(s.Machine().State()) || w.refused != "" {
		w.m.log.Debug("heartbeat connection ended", "instance", w.name(), "remote", s.Remote(), "why", err)
		return
	}
	w.unreached(err.Error())
}

// unreached tells that there is no session and why. An instance that was heard of
// before has its own messages.
func (w *watch) unreached(why string) {
	level := slog.LevelDebug
	if w.m.View().Instances[w.index].Monitoring == Unknown {
		level = slog.LevelWarn
	}
	w.complain(&w.broken, level, notReached, why)
}

const notReached = "watchdog not reached"

// complain shows trouble with a watchdog, and logs it unless it is the same as
// last time, until a session is armed.
func (w *watch) complain(last *string, level slog.Level, message, why string) {
	w.m.act(func(_ mono.Instant, out *Actions) { w.m.fleet.Trouble(w.index, why, out) })
	if *last == why {
		return
	}
	*last = why
	w.m.log.Log(w.m.ctx, level, message, "instance", w.name(), "remote", w.session.Remote(), "why", why)
}

func (w *watch) name() string {
	v := w.m.View().Instances[w.index]
	return v.Name()
}

// askDoor tries the instance's own port, off the loop.
func (m *monitor) askDoor(index int) {
	w := m.watches[index]
	asked := m.loop.Now()
	addr := netip.AddrPortFrom(m.View().Instances[index].Addr, w.backend.Port)
	m.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, doorTimeout)
		defer cancel()
		outcome := Door(ctx, new(net.Dialer).DialContext, addr)
		m.loop.Do(func() {
			m.act(func(now mono.Instant, out *Actions) {
				m.fleet.Door(now, index, DoorResult{Asked: asked, Outcome: outcome}, out)
			})
		})
	})
}

// doorTimeout is how long a door may take to answer.
const doorTimeout = 2 * time.Second

// report logs what the fleet has to say and keeps it for SHOW EVENTS.
func (m *monitor) report(e FleetEntry) {
	level := slog.Level(e.Level)
	if level == slog.LevelInfo {
		level = LevelLog // what happened to an instance is for every operator
	}
	m.log.Log(m.ctx, level, e.Message, e.Args...)
	m.event(m.eventOf(e))
}

// eventOf is the entry as a line of SHOW EVENTS. The fleet's entries name the
// instance as their first attribute.
func (m *monitor) eventOf(e FleetEntry) Event {
	var text strings.Builder
	text.WriteString(e.Message)
	var number *int
	for _, n := range m.View().Instances {
		if len(e.Args) > 1 && e.Args[1] == n.Name() {
			number = new(n.Number)
		}
	}
	for i := 0; i+1 < len(e.Args); i += 2 {
		fmt.Fprintf(&text, " %v=%v", e.Args[i], e.Args[i+1])
	}
	return Event{Kind: "state", Instance: number, Detail: text.String()}
}

// deliver carries faults to the applications, in order.
func (m *monitor) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.faults.ready:
		}
		for _, f := range m.faults.take() {
			m.fault(f)
		}
	}
}

// queue is an unbounded mailbox: the sender must never block, and nothing may
// be lost.
type queue[T any] struct {
	ready chan struct{} // holds one token while there is something

	mu    sync.Mutex // guards the following
	items []T
}

func (q *queue[T]) push(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}
