// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// newSockets makes the terminator's view of the kernel.
func (s *server) newSockets() *peerSockets {
	s.scope.Store(&scope{})
	return &peerSockets{
		dial:  dialSockets,
		scope: func() scope { return *s.scope.Load() },
		own:   s.own.ends,
		heard: s.life.last,
		log:   s.log,
		fresh: freshLook,
	}
}

func dialSockets() (socketTable, error) {
	table, err := sockdiag.Dial()
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return table, nil
}

// proofLimit is for a host whose loopback device is down: nobody answers there.
const proofLimit = 2 * time.Second

// ProveSockets finds out whether this process can destroy sockets, by destroying one
// of its own on loopback. The error is one of [sockdiag.Conn.Prove]; SocketsAdvice
// says what to do about it.
func ProveSockets(ctx context.Context) error {
	table, err := sockdiag.Dial()
	if err != nil {
		return err
	}
	defer table.Close()
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	return table.Prove(ctx)
}

// rescope finds out anew where the instance listens; names are resolved, so it
// must not be called on the loop. The instance's listen_addresses change with a
// restart of it only, but what a name stands for can change any time.
func (s *server) rescope() {
	s.settings.mu.Lock()
	config, server := s.settings.config, s.settings.sources.Server
	s.settings.mu.Unlock()
	next := scope{ports: config.Ports, heartbeat: config.Port}
	if server != nil {
		words, err := conf.ParseList(server.ListenAddresses)
		if err == nil {
			next.listens, err = listenAddrs(words, server.Port)
		}
		if err != nil {
			s.log.Debug("cannot resolve an address that the instance listens on", "err", err)
		}
	}
	s.scope.Store(&next)
}
