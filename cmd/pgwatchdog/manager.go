// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"time"

	"github.com/pgconmgr/pgconmgr/cmd/internal/cli"
)

// manager is the service manager, as far as it has a part in this run: it is told
// when the agent serves, that it does not hang, and keeps its listening sockets
// over a restart.
type manager struct {
	notifier   *cli.Notifier // nil: there is none
	aliveEvery time.Duration // 0: it does not ask
	inherited  []int         // sockets of the last run
	log        *slog.Logger
}

func meetManager(log *slog.Logger) (*manager, error) {
	m := &manager{log: log}
	var err error
	if m.notifier, err = cli.NewNotifier(); err != nil {
		return nil, err
	}
	if m.aliveEvery, err = cli.AliveEvery(); err != nil {
		return nil, err
	}
	if m.inherited, err = cli.TakeDescriptors(); err != nil {
		log.Warn("a descriptor of the last run is of no use", "err", err)
	}
	return m, nil
}

// tell passes a message on.
func (m *manager) tell(message func() error) {
	if err := message(); err != nil {
		m.log.Debug("the service manager does not listen", "err", err)
	}
}
