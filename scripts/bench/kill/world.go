// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
)

const port = 5432

// world is the server with its ends of all connections, and the clients.
type world struct {
	db, peer *agenttest.Host
	program  string // this one
	server   *child.Child
	victims  holders // of the peer
	others   holders
}

func newWorld(ctx context.Context, lab *agenttest.Lab, others int) (*world, error) {
	w := &world{db: lab.Host("db"), peer: lab.Host("peer")}
	var err error
	if w.program, err = os.Executable(); err != nil {
		return nil, err
	}
	if w.server, err = child.Start(ctx, w.db, w.program, verbServe, w.addr(), w.peer.Addr4.String()); err != nil {
		return nil, err
	}
	// It answers when it listens.
	if _, _, err = w.count(0); err == nil {
		err = w.openFrom(ctx, lab.Host("other"), &w.others, others)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) addr() string { return netip.AddrPortFrom(w.db.Addr4, port).String() }

// open opens the peer's connections.
func (w *world) open(ctx context.Context, n int) error { return w.openFrom(ctx, w.peer, &w.victims, n) }

func (w *world) openFrom(ctx context.Context, h *agenttest.Host, hs *holders, n int) error {
	if err := w.server.Send("accept", n); err != nil {
		return err
	}
	if err := hs.open(ctx, h, w.program, w.addr(), n); err != nil {
		return err
	}
	return child.AwaitOK(w.server)
}

// closePeer closes both ends of the peer's connections.
func (w *world) closePeer() error {
	if err := w.server.Send("close", 0); err != nil {
		return err
	}
	return errors.Join(child.AwaitOK(w.server), w.victims.close())
}

// count looks at each of the server's ends: who of the peer's n is not closed,
// who of the others is.
func (w *world) count(n int) (survivors, lost int, err error) {
	if err := w.server.Send("count", 0); err != nil {
		return 0, 0, err
	}
	answer, err := w.server.Receive()
	if err != nil {
		return 0, 0, err
	}
	var victims, bystanders int
	if _, err := fmt.Sscan(answer, &victims, &survivors, &bystanders, &lost); err != nil {
		return 0, 0, fmt.Errorf("server process answered %q: %w", answer, err)
	}
	if victims != n {
		return 0, 0, fmt.Errorf("the server has %d sockets of the peer: expected %d", victims, n)
	}
	return survivors, lost, nil
}

func (w *world) close() {
	for _, c := range append(append(holders{w.server}, w.victims...), w.others...) {
		c.Stop()
	}
}
