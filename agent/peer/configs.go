// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// timers are what tells the sessions of one listener apart in their machines'
// configuration.
type timers struct {
	interval, timeout time.Duration
	datagram          bool
}

func timersOf(h *wire.Hello, t transport) timers {
	_, datagram := t.(*endpoint)
	return timers{
		interval: time.Duration(h.IntervalMS) * time.Millisecond,
		timeout:  time.Duration(h.TimeoutMS) * time.Millisecond,
		datagram: datagram,
	}
}

// configs are the machine configurations of a listener: one for all sessions with
// the same timers, kept for as long as any of them lives.
type configs struct {
	common heartbeat.Config
	shared map[timers]*sharedConfig
}

type sharedConfig struct {
	heartbeat.Config
	users int
}

func newConfigs(common heartbeat.Config) configs {
	return configs{common: common, shared: map[timers]*sharedConfig{}}
}

// take returns the configuration for one more session; release gives it back.
func (c *configs) take(t timers) *heartbeat.Config {
	s := c.shared[t]
	if s == nil {
		s = &sharedConfig{Config: c.common}
		s.Interval, s.Timeout, s.Datagram = t.interval, t.timeout, t.datagram
		c.shared[t] = s
	}
	s.users++
	return &s.Config
}

func (c *configs) release(cfg *heartbeat.Config) {
	t := timers{cfg.Interval, cfg.Timeout, cfg.Datagram}
	if s := c.shared[t]; s.users > 1 {
		s.users--
		return
	}
	delete(c.shared, t)
}
