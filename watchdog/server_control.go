// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/watchdog/control"
)

// provenRights are what the instance said last of the agent's role.
type provenRights struct {
	mu     sync.Mutex // guards the following
	role   string
	rights Rights
}

func (p *provenRights) set(role string, r Rights) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.role, p.rights = role, r
}

// get returns what is missing; nothing is known while the role is empty.
func (p *provenRights) get() (role string, missing []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.role == "" {
		return "", nil
	}
	return p.role, p.rights.Missing(p.role)
}

// openControl makes the control socket. Without one the agent does its work all the
// same: nil, and one line.
func (s *server) openControl() *control.Server {
	path := filepath.Join(s.options.State, control.SocketName)
	c, err := control.Listen(path, s, s.log)
	if err != nil {
		s.log.Error("no control socket: agentctl sessions and pause do not work", "err", err,
			"expected", "a state directory that the agent may write to, with a short path")
		return nil
	}
	return c
}

// Status implements control.Handler.
func (s *server) Status(ctx context.Context) (control.Status, error) {
	c, err := s.census(ctx)
	if err != nil {
		return control.Status{}, err
	}
	config := s.config()
	st := control.Status{
		Version: s.options.Version, PID: os.Getpid(), Started: s.started.UTC(), StateDir: s.options.State,
		Kills: killsWord(wire.Instance{Paused: c.paused != nil, DryRun: config.DryRun}), Pause: c.pause(),
		Instance: instanceOf(s.monitor.State()), Sessions: c.sessions(), Clients: c.clients,
		Links: s.linksStatus(config), Sockets: s.sockets.status(),
		Database: control.Database{Monitor: s.monitor.Reached(), Terminator: s.terminator.PID() != 0},
		Fuse:     control.Fuse{Blown: c.loop.Fuses, Held: c.Held}, Stalls: c.loop.Stalls,
	}
	if !c.loop.Fused.IsZero() {
		st.Fuse.Last = clock.Wall(c.loop.Fused).UTC()
	}
	st.Sessions.Limit, st.Sessions.Keyed = config.MaxHeartbeatConnections, s.options.KeyFile != ""
	st.Database.Role, st.Database.Missing = s.rights.get()
	st.Descriptors, err = descriptors(config)
	return st, err
}

func instanceOf(i wire.Instance) control.Instance {
	return control.Instance{Status: i.Status.String(), Attribute: i.Attribute.String(), Timeline: i.Timeline, Port: i.Port}
}

func (c *census) sessions() control.Sessions {
	return control.Sessions{
		Init: c.ByState[wire.StateInit], Up: c.ByState[wire.StateUp],
		Late: c.ByState[wire.StateLate], Suspect: c.ByState[wire.StateSuspect],
	}
}

func (c *census) pause() *control.Pause {
	p := c.paused
	if p == nil {
		return nil
	}
	return &control.Pause{
		Since: p.Since.UTC(), Until: p.Until.UTC(), LeftMS: max(0, p.end.Sub(c.now).Milliseconds()),
		By: p.By, Reason: p.Reason,
	}
}

func (s *server) linksStatus(config *Config) control.Links {
	l := control.Links{Enabled: config.LinkHints, Source: s.links.Source()}
	for _, m := range s.links.Missing() {
		l.Missing = append(l.Missing, control.MissingSource{Source: m.Source.String(), Error: m.Err.Error(), Hint: m.Hint})
	}
	return l
}

// status may be called from any goroutine.
func (p *peerSockets) status() control.Sockets {
	err := p.proof.Load()
	switch {
	case err == nil:
		return control.Sockets{}
	case *err != nil:
		return control.Sockets{Proven: true, Error: (*err).Error()}
	}
	return control.Sockets{Proven: true}
}

// descriptors counts the open files of this process.
func descriptors(config *Config) (control.Descriptors, error) {
	d := control.Descriptors{Need: config.Descriptors()}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return d, fmt.Errorf("read the limit on file descriptors: %w", err)
	}
	d.Limit = limit.Cur
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return d, fmt.Errorf("count open files: %w", err)
	}
	d.Open = len(open) - 1 // the directory itself
	return d, nil
}

// Pause implements control.Handler.
func (s *server) Pause(ctx context.Context, o control.Order) (warning string, err error) {
	if o.For > MaxPause {
		return "", fmt.Errorf("a pause of %s: expected at most %s; watchdog.dry_run = on lasts until it is taken back", o.For, MaxPause)
	}
	written := make(chan error, 1)
	err = s.call(ctx, func() {
		if o.For <= 0 {
			s.gate.resume(o.By)
			written <- nil
			return
		}
		p := newPause(s.keeper.bootID, s.loop.Now(), time.Now(), o.For, o.By, o.Reason)
		s.gate.pause(p)
		s.keeper.savePause(&p, written)
	})
	if err != nil {
		return "", err
	}
	select {
	case err := <-written:
		if err != nil {
			return "a restart of the agent would forget it: " + err.Error(), nil
		}
	case <-ctx.Done():
		return "it is not known whether it would survive a restart of the agent: " + ctx.Err().Error(), nil
	}
	return "", nil
}
