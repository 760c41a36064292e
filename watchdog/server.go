// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Options are what a watchdog runs with.
type Options struct {
	DSN   string // the instance, see ConnectOptions
	State string // directory of the agent's own files; must exist
	// KeyFile has the keys of which one is required for a heartbeat; empty
	// requires none, and serves no UDP.
	KeyFile string
	// RunDir is where the SQL extension finds what the agent tells it, made when it
	// is missing; see DefaultRunDir. Empty publishes nothing.
	RunDir string
	File   []conf.Entry // pgwatchdog.conf
	Flags  []conf.Entry // settings of the command line
	// Reload delivers a value for each reload that the operator asks for, with
	// the entries of pgwatchdog.conf as they are now. May be nil.
	Reload <-chan []conf.Entry
	// Ready is called once when heartbeats are served and the instance has been
	// looked at. May be nil.
	Ready func()
	// Alive is called by the main loop every AliveEvery, for as long as it is not
	// stuck. It must not block. May be nil.
	Alive      func()
	AliveEvery time.Duration
	// Sockets keeps the listening sockets for the next process, nil keeps none;
	// Inherited are those of an earlier one, which Run owns.
	Sockets   peer.SocketKeeper
	Inherited []int
	// Metrics serves watchdog.metrics_listen; nil does not.
	Metrics MetricsServer
	Version string       // of the program, for those who ask
	Log     *slog.Logger // nil discards
}

// server is one running watchdog. The parts and who calls whom:
//
//	Monitor ---state, settings---> gate (on the loop) <---sessions--- peer.Loop
//	                                 |  docket: ends of sessions to warrants
//	                                 +---warrants---> Terminator
//	                                 +---records----> keeper (files)
//	                                 +---sessions---> publisher (SQL extension)
//	                                 ^
//	agentctl ---> control -----------+ sessions, pause
//
// The gate and the docket belong to the loop goroutine.
type server struct {
	options    Options
	log        *slog.Logger
	loop       *peer.Loop
	gate       *gate
	monitor    *Monitor
	terminator *Terminator
	keeper     *keeper
	publisher  *publisher
	gathered   *gathered // the publisher's
	sockets    *peerSockets
	own        ownConns
	life       lifeSigns
	links      *linkhint.Hints
	rights     provenRights
	started    time.Time
	configured chan struct{} // the configuration has changed; see serveMetrics
	scope      atomic.Pointer[scope]
	settings   settings
	listening  sync.Mutex // held by listen
}

// settings are the configuration and where it comes from.
type settings struct {
	mu      sync.Mutex // guards the following
	sources Sources
	config  *Config
}

// Run is the whole life of a watchdog. It returns nil after ctx has ended and
// every conmgr was told that the agent goes.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := lockState(o.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := newServer(o)
	if err != nil {
		return err
	}
	defer s.keeper.close()
	return s.run(ctx)
}

func newServer(o Options) (*server, error) {
	s := &server{options: o, log: o.Log, started: time.Now(), configured: make(chan struct{}, 1)}
	earlier, err := LoadServerSettings(o.State)
	if err != nil {
		o.Log.Error("cannot use the settings kept from the last run", "err", err)
	}
	s.settings.sources = Sources{Server: earlier, File: o.File, Flags: o.Flags}
	config, findings := Resolve(s.settings.sources, nil)
	s.settings.config = config
	s.tell(findings)

	id, err := ownID(o.State)
	if err != nil {
		return nil, err
	}
	if s.keeper, err = openKeeper(o.State, o.Log); err != nil {
		return nil, err
	}
	if s.loop, err = peer.NewLoop(o.Log); err != nil {
		return nil, err
	}
	s.monitor = NewMonitor(MonitorOptions{
		Connect: ConnectOptions{DSN: o.DSN, Dial: s.own.dial}, Config: config, Earlier: earlier, Log: o.Log,
		OnState: s.onState, OnSettings: s.onSettings, OnRights: s.onRights, OnRelease: s.onRelease,
		OnDirectory: func(path string) { s.publisher.setDirectory(path) },
	})
	s.publisher = &publisher{dir: o.RunDir, log: o.Log, sessions: s.writeSessions, events: s.keeper.events}
	ring, err := s.loadRing()
	if err != nil {
		return nil, err
	}
	s.openLinks()
	s.gate = newGate(s, id)
	s.beat()
	s.gate.setRing(ring)
	if ring == nil {
		o.Log.Warn("heartbeats are not authenticated: who can send from an address in watchdog.clients can forge them; UDP is not served",
			"hint", "make a key with cm_ctl keygen and start with --key-file")
	}
	s.sockets = s.newSockets()
	s.terminator = NewTerminator(TerminatorConfig{
		Connect: s.connectTerminator, Known: s.failureKnown, Timeout: config.TerminateTimeout,
		Protected: s.gate.protects, OwnPIDs: func() []uint32 { return []uint32{s.monitor.PID()} },
		LastLook: s.sockets.LastLook, Sockets: s.sockets,
		Done: s.onDone, Events: s.keeper.events, Log: o.Log,
	})
	return s, nil
}

func (s *server) run(ctx context.Context) error {
	// The loop outlives ctx by the moment that the goodbyes take.
	loopCtx, stopLoop := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLoop()
	c := s.openControl()
	s.sockets.prove(ctx, ProveSockets)
	defer s.sockets.close()
	g, ctx := errgroup.WithContext(ctx)
	if c != nil {
		g.Go(func() error { c.Run(ctx); return nil })
	}
	g.Go(func() error { return s.loop.Run(loopCtx) })
	g.Go(func() error { return s.monitor.Run(ctx) })
	g.Go(func() error { return ignoreEnd(s.terminator.Run(ctx)) })
	g.Go(func() error { s.keeper.run(ctx); return nil })
	g.Go(func() error { s.publisher.run(ctx); return nil })
	g.Go(func() error { s.watchReloads(ctx); return nil })
	g.Go(func() error { s.watchAddresses(ctx); return nil })
	g.Go(func() error { s.links.Run(ctx); return nil })
	g.Go(func() error { s.serveMetrics(ctx); return nil })
	g.Go(func() error {
		<-ctx.Done()
		s.farewell()
		stopLoop()
		return nil
	})
	s.log.Info("pgwatchdog starts", "state", s.options.State)
	err := g.Wait()
	s.log.Info("pgwatchdog stops")
	return err
}

func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// farewell says BYE to every conmgr: they hold on to their instance and wait.
func (s *server) farewell() {
	done := make(chan struct{})
	s.loop.Do(func() {
		s.gate.stop()
		close(done)
	})
	select {
	case <-done:
	case <-time.After(2 * time.Second): // the loop has ended by an error of its own
	}
}

// onState is called by the monitor with every new state of the instance.
func (s *server) onState(i wire.Instance) {
	s.loop.Do(func() { s.gate.instance(i) })
}

// onSettings is called by the monitor when the instance has loaded its
// configuration.
func (s *server) onSettings(server *ServerSettings) {
	if err := server.Save(s.options.State); err != nil {
		s.log.Error("cannot keep the instance's settings for a start without it", "err", err)
	}
	s.reconfigure(func(src *Sources) { src.Server = server })
}

// reconfigure resolves the configuration anew and applies it.
func (s *server) reconfigure(change func(*Sources)) {
	s.settings.mu.Lock()
	change(&s.settings.sources)
	config, findings := Resolve(s.settings.sources, s.settings.config)
	s.settings.config = config
	s.settings.mu.Unlock()
	select {
	case s.configured <- struct{}{}:
	default: // it is to be looked at anyway
	}
	s.tell(findings)
	s.apply()
}

// apply has everybody go by the present configuration. Two that change it at the same
// time may come here in either order: each applies what is the latest by then.
func (s *server) apply() {
	s.loop.Do(func() {
		c := s.config()
		s.monitor.SetConfig(c)
		s.gate.configure(c)
	})
	s.listen()
}

// listen resolves the addresses to listen on, off the loop, and hands them to it.
// One call at a time, by the configuration of then: resolving takes any time, and what
// an older configuration wants must not come last.
func (s *server) listen() {
	s.listening.Lock()
	defer s.listening.Unlock()
	c := s.config()
	want, err := listenAddrs(c.ListenAddresses, c.Port)
	if err != nil {
		s.log.Error("cannot resolve an address to listen on", "err", err, "expected", "addresses or known names in watchdog.listen_addresses")
	}
	s.loop.Do(func() { s.gate.listen(want) })
	s.rescope()
}

func (s *server) config() *Config {
	s.settings.mu.Lock()
	defer s.settings.mu.Unlock()
	return s.settings.config
}

func (s *server) tell(f Findings) {
	for _, text := range f.Errors {
		s.log.Error("setting not taken", "why", text)
	}
	for _, text := range f.Warnings {
		s.log.Warn("setting", "why", text)
	}
	for _, text := range f.Notes {
		s.log.Info("setting", "why", text)
	}
}

func (s *server) onRights(role string, r Rights) {
	s.rights.set(role, r)
	for _, missing := range r.Missing(role) {
		s.log.Error("the agent's role lacks a right: sessions of dead clients will not end", "role", role, "expected", missing)
	}
}

// onRelease gives the terminator's connection up: a smart shutdown of the
// instance waits for it. It is opened again with the next postmaster.
func (s *server) onRelease() { s.terminator.Release() }

func (s *server) connectTerminator(ctx context.Context) (*pgconn.PgConn, error) {
	return Connect(ctx, ConnectOptions{DSN: s.options.DSN, Dial: s.own.dial})
}

// failureKnown: without an instance there are no sessions either, and what keeps
// the state connection from being made too is the monitor's to complain of.
func (s *server) failureKnown(err error) bool {
	kind := classify(err)
	return kind == failRefused || kind == failNotYet || !s.monitor.Reached()
}

// onDone is called by the terminator with the result of each warrant.
func (s *server) onDone(r Result) {
	s.loop.Do(func() { s.gate.done(r) })
}

func (s *server) watchReloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case entries := <-s.options.Reload:
			s.log.Info("reloading the configuration")
			s.reconfigure(func(src *Sources) { src.File = entries })
			s.reloadRing()
			s.monitor.Reread()
		}
	}
}

// loadRing reads the key file, nil without one.
func (s *server) loadRing() (*key.Ring, error) {
	if s.options.KeyFile == "" {
		return nil, nil
	}
	return keyfile.Load(s.options.KeyFile)
}

// reloadRing reads the key file again. What cannot be read changes nothing.
func (s *server) reloadRing() {
	ring, err := s.loadRing()
	if err != nil {
		s.log.Error("key file not reloaded, the old keys stay in use", "err", err)
		return
	}
	s.loop.Do(func() { s.gate.setRing(ring) })
}

// addressesEvery is how often the host's own addresses are read: samehost,
// samenet and the protection of the own addresses go by them.
const addressesEvery = 5 * time.Second

func (s *server) watchAddresses(ctx context.Context) {
	tick := time.NewTicker(addressesEvery)
	defer tick.Stop()
	for {
		own, err := OwnPrefixes()
		if err != nil {
			s.log.Error("cannot read the host's addresses: clients of the own networks may be refused", "err", err)
		} else {
			s.loop.Do(func() { s.gate.own(own) })
		}
		s.listen()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// newSessionIDs returns a source of session ids that start at a random place, so
// that an id of an earlier run is not used again.
func newSessionIDs() func() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	next := uint64(0)
	for _, v := range b[:7] {
		next = next<<8 | uint64(v)
	}
	return func() uint64 {
		next++
		return next
	}
}

// beat calls Alive from the loop, for as long as that runs.
func (s *server) beat() {
	if s.options.Alive == nil || s.options.AliveEvery <= 0 {
		return
	}
	var timer *peer.Timer
	timer = s.loop.NewTimer(func() {
		s.options.Alive()
		timer.Set(s.loop.Now().Add(s.options.AliveEvery))
	})
	s.loop.Do(func() { timer.Set(s.loop.Now()) })
}

func (s *server) ready() {
	if s.options.Ready != nil {
		s.options.Ready()
		s.options.Ready = nil
	}
}
