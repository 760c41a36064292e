// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// MonitorOptions are what a Monitor needs. The callbacks are called one at a time
// from the goroutine of Run; while one blocks, nothing is seen.
type MonitorOptions struct {
	Connect ConnectOptions // ApplicationName and Timeout are the monitor's own
	Config  *Config        // timings to begin with; nil means the defaults
	Earlier *ServerSettings
	Log     *slog.Logger // nil discards

	// OnState gets every new state. The generation rises with every change but
	// those of the WAL position; a state with a new generation is to be pushed.
	OnState func(wire.Instance)
	// OnSettings gets the settings after every load of the configuration, and
	// after Reread, before the state that came with them. They are the receiver's.
	OnSettings func(*ServerSettings)
	// OnRights gets what the role may do, after every connect. The terminator's
	// Missing rights are the receiver's to complain of.
	OnRights func(role string, r Rights)
	// OnDirectory gets the instance's data directory as the instance names it, after
	// every connect; empty when the role may not read it.
	OnDirectory func(path string)
	// OnRelease is called in a smart shutdown, which waits for all sessions, when
	// only the agent's own are left: the receiver should close its own too. The
	// monitor has closed its connection and comes back with the next postmaster.
	OnRelease func()
}

// Monitor keeps one connection to the instance and knows what the instance is.
// All methods may be called from any goroutine and do not block.
type Monitor struct {
	options MonitorOptions
	log     *slog.Logger
	wake    chan struct{} // something below was asked for
	pid     atomic.Uint32 // of the state connection

	reached atomic.Bool // the latest check got its answer

	mu sync.Mutex // guards the following
	wishes
	state wire.Instance
}

// wishes are what other goroutines ask of the loop.
type wishes struct {
	check, knock, reread bool // once
	fast                 bool // for as long as it is set
	paused, dryRun       bool
	timing               timing
}

// timing is the part of Config that the monitor lives by.
type timing struct {
	check, accept, acceptTimeout time.Duration
}

func timingOf(c *Config) timing {
	return timing{check: c.CheckAttrInterval, accept: c.CheckAcceptInterval, acceptTimeout: c.AcceptTimeout}
}

// NewMonitor makes a monitor that does nothing until Run.
func NewMonitor(o MonitorOptions) *Monitor {
	if o.Config == nil {
		o.Config, _ = Resolve(Sources{}, nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Monitor{options: o, log: o.Log, wake: make(chan struct{}, 1)}
	m.timing, m.dryRun = timingOf(o.Config), o.Config.DryRun
	return m
}

// State returns the state as last known.
func (m *Monitor) State() wire.Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// PID returns the state connection's session in the instance, 0 while there is
// none.
func (m *Monitor) PID() uint32 { return m.pid.Load() }

// Reached reports whether the latest check of the instance got its answer.
func (m *Monitor) Reached() bool { return m.reached.Load() }

// CheckNow asks for a check at once.
func (m *Monitor) CheckNow() { m.wish(func(w *wishes) { w.check = true }) }

// SlowConnect tells that a conmgr had a slow connect: the door is tried at once,
// though never two at a time, nor more than five in a second.
func (m *Monitor) SlowConnect() { m.wish(func(w *wishes) { w.knock = true }) }

// Reread asks for the settings to be read again.
func (m *Monitor) Reread() { m.wish(func(w *wishes) { w.reread, w.check = true, true }) }

// Fast tells whether a conmgr waits for a primary. While the instance is a standby
// whose data directory cannot be watched, it is then checked every 50 ms.
func (m *Monitor) Fast(on bool) { m.wish(func(w *wishes) { w.fast = on }) }

// SetPaused tells that agentctl pause suspends kills; it is shown in the state.
func (m *Monitor) SetPaused(on bool) { m.wish(func(w *wishes) { w.paused = on }) }

// SetConfig applies the timings and dry_run of a new configuration.
func (m *Monitor) SetConfig(c *Config) {
	m.wish(func(w *wishes) { w.timing, w.dryRun = timingOf(c), c.DryRun })
}

func (m *Monitor) wish(f func(*wishes)) {
	m.mu.Lock()
	f(&m.wishes)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run watches the instance until ctx ends, and then returns nil, with every
// goroutine and descriptor of its own gone. Trouble with the instance never ends
// it. An error is a dsn that can never work. Run may be called once.
func (m *Monitor) Run(ctx context.Context) error {
	l := &link{options: m.options.Connect, pid: &m.pid}
	network, address, err := l.checkDSN()
	if err != nil {
		return fmt.Errorf("watch the instance: %w", err)
	}
	w := newWatch(ctx, m, l, network, address)
	defer w.close()
	w.loop()
	return nil
}

// take copies the wishes and clears those that are for once.
func (m *Monitor) take() wishes {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.wishes
	m.check, m.knock, m.reread = false, false, false
	return w
}

func (m *Monitor) publish(state wire.Instance) {
	m.mu.Lock()
	m.state = state
	m.mu.Unlock()
	if m.options.OnState != nil {
		m.options.OnState(state)
	}
}
