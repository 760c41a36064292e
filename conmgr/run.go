// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Causes of Run's cancelled context; any other one is a fast shutdown.
var (
	// ErrImmediate means: stop at once, tell nobody.
	ErrImmediate = errors.New("immediate shutdown requested")
	// ErrRestart means: as fast, and tell everybody that conmgr comes back.
	ErrRestart = errors.New("restart requested")
)

// RunOptions are what a conmgr runs with.
type RunOptions struct {
	Config      *Config      // from Load
	Directory   *Directory   // claimed by the caller, who releases it after Run
	Log         *slog.Logger // nil discards
	Incarnation uint64       // differs from that of every earlier run in this directory
	Version     string
	// Reload delivers a value each time the operator asks for the key file to be
	// read again. May be nil.
	Reload <-chan struct{}
	// Metrics serves metrics_listen; nil does not.
	Metrics MetricsServer
	// Ready is called once when applications are served. May be nil.
	Ready func()
}

// daemon is one running conmgr.
type daemon struct {
	options  RunOptions
	log      *slog.Logger
	monitor  *monitor
	server   *Server
	started  time.Time
	requests chan ShutdownMode
}

// Run is the whole life of a conmgr. It returns nil after a shutdown that was
// asked for, through ctx or through conmgr.sock.
func Run(ctx context.Context, o RunOptions) error {
	d, err := newDaemon(o)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

func newDaemon(o RunOptions) (*daemon, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	id, err := o.Directory.ID()
	if err != nil {
		return nil, err
	}
	systemID, err := readSystemID(o.Directory)
	if err != nil {
		return nil, err
	}
	ring, err := loadRing(o.Config)
	if err != nil {
		return nil, err
	}
	d := &daemon{options: o, log: o.Log, started: time.Now(), requests: make(chan ShutdownMode, 4)}
	if d.monitor, err = newMonitor(o.Config, ring, wire.ID(id), o.Incarnation, systemID, o.Log); err != nil {
		return nil, err
	}
	options, err := d.serverOptions()
	if err != nil {
		return nil, err
	}
	if d.server, err = NewServer(options); err != nil {
		return nil, err
	}
	d.monitor.fault = d.server.Apps().Fault
	d.monitor.event = d.server.Event
	d.monitor.learned = d.keepSystemID
	return d, nil
}

func (d *daemon) serverOptions() (ServerOptions, error) {
	cfg := d.options.Config
	balance, err := ParseBalance(cfg.LoadBalance)
	if err != nil {
		return ServerOptions{}, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return ServerOptions{}, fmt.Errorf("read the limit on file descriptors: %w", err)
	}
	roots, err := LoadRoots(cfg.ProxySSLRootCert)
	if err != nil {
		return ServerOptions{}, err
	}
	router := NewRouter(Policy{LoadBalance: balance, Random: rand.IntN, Now: clock.Now})
	return ServerOptions{
		Log: d.log, LevelLog: LevelLog, Source: d.monitor,
		Route: router.Route,
		Port:  cfg.Port, ListenAddresses: cfg.ListenAddresses, SocketPath: d.options.Directory.SocketPath(),
		ProxyListen: cfg.ProxyListen, ProxyAllow: cfg.ProxyAllow,
		ProxyTarget: cfg.ProxyTarget, ProxySSLMode: cfg.ProxySSLMode, ProxyRoots: roots,
		MaxConnections: int(cfg.MaxConnections), Descriptors: cfg.DescriptorsLeft(limit.Cur),
		CloseOnRoleChange: cfg.CloseOnRoleChange, CloseOnStalePrimary: cfg.CloseOnStalePrimary,
		Config: cfg.Rows, Status: d.status, Shutdown: d.requestShutdown, SlowConnect: d.monitor.slowConnect,
	}, nil
}

func (d *daemon) status() Status {
	state := "ready"
	if d.server.stopping.Load() {
		state = "shutting down"
	}
	return Status{State: state, PID: os.Getpid(), Started: d.started, Version: d.options.Version, Hints: d.monitor.hintSource()}
}

// requestShutdown is asked for on conmgr.sock.
func (d *daemon) requestShutdown(mode ShutdownMode) error {
	select {
	case d.requests <- mode:
		return nil
	default:
		return errors.New("a shutdown is going on already")
	}
}

func (d *daemon) run(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return d.monitor.run(running) })
	g.Go(func() error { return d.server.Run(running) })
	g.Go(func() error { d.watchReloads(running); return nil })
	if at := d.options.Config.MetricsListen; len(at) > 0 && d.options.Metrics != nil {
		g.Go(func() error { d.options.Metrics(running, at, d.metrics); return nil })
	}
	g.Go(func() error {
		defer stop()
		d.awaitShutdown(ctx, running)
		return nil
	})
	d.log.Log(ctx, LevelLog, "ready for applications", "port", d.server.Port(), "proxy_ports", len(d.server.ProxyPorts()))
	if d.options.Ready != nil {
		d.options.Ready()
	}
	return g.Wait()
}

// loadRing reads the key file, nil without one.
func loadRing(cfg *Config) (*key.Ring, error) {
	if cfg.HeartbeatKeyFile == "" {
		return nil, nil
	}
	return keyfile.Load(cfg.HeartbeatKeyFile)
}

func (d *daemon) watchReloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.options.Reload:
		}
		ring, err := loadRing(d.options.Config)
		if err != nil {
			d.log.Error("key file not reloaded, the old keys stay in use", "err", err)
			continue
		}
		d.monitor.setRing(ring)
		d.log.Log(ctx, LevelLog, "key file reloaded", "keys", len(ring.Keys()))
	}
}

// awaitShutdown returns when conmgr is to end: everybody has been told. A smart
// shutdown waits for the applications and can be hurried by a harder one.
func (d *daemon) awaitShutdown(asked, running context.Context) {
	mode := d.nextRequest(asked, running)
	for mode == ShutdownSmart {
		waiting, hurry := context.WithCancel(running)
		harder := make(chan ShutdownMode, 1)
		go func() {
			harder <- d.nextRequest(asked, waiting)
			hurry()
		}()
		if d.shutdown(waiting, ShutdownSmart) {
			hurry()
			return
		}
		mode = <-harder
	}
	if mode != "" {
		d.shutdown(running, mode)
	}
}

// nextRequest waits for a request; "" means that conmgr ends by itself.
func (d *daemon) nextRequest(asked, until context.Context) ShutdownMode {
	select {
	case mode := <-d.requests:
		return mode
	case <-asked.Done():
		return modeOf(context.Cause(asked))
	case <-until.Done():
		return ""
	}
}

func modeOf(cause error) ShutdownMode {
	switch {
	case errors.Is(cause, ErrImmediate):
		return ShutdownImmediate
	case errors.Is(cause, ErrRestart):
		return ShutdownRestart
	}
	return ShutdownFast
}

// byes are what the watchdogs are told by each mode.
var byes = map[ShutdownMode]wire.ByeKind{
	ShutdownSmart:     wire.ByeLeave, // nobody is left behind
	ShutdownFast:      wire.ByeStop,
	ShutdownImmediate: wire.ByeStop,
	ShutdownRestart:   wire.ByeRestart,
}

// shutdown lets the applications go, then says BYE. It reports whether it got
// that far.
func (d *daemon) shutdown(ctx context.Context, mode ShutdownMode) bool {
	d.log.Log(ctx, LevelLog, "shutdown requested", "mode", mode, "applications", d.server.Apps().Count())
	if err := d.server.Shutdown(ctx, mode); err != nil {
		return false
	}
	d.monitor.stop(ctx, byes[mode])
	return true
}

const (
	systemIDFile  = "system_identifier"
	systemIDLimit = 64
)

// readSystemID returns the system identifier that an earlier run learned, 0 for
// none. A damaged file is an error: learning anew could bless a wrong cluster.
func readSystemID(dir *Directory) (uint64, error) {
	text, err := dir.ReadFile(systemIDFile, systemIDLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("file %s in %s: expected a system identifier; remove the file to learn it anew", systemIDFile, dir.Path())
	}
	return id, nil
}

func (d *daemon) keepSystemID(id uint64) {
	err := d.options.Directory.WriteFile(systemIDFile, []byte(strconv.FormatUint(id, 10)+"\n"))
	if err != nil {
		d.log.Error("cannot keep the learned system identifier", "err", err)
	}
}
