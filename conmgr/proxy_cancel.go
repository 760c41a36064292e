// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"slices"
	"sync"
)

// cancelRoute is the way a cancel request takes: that of the session which it
// cancels.
type cancelRoute struct {
	at  netip.AddrPort
	sec security // clear text, or TLS without a choice
}

// cancelKeys knows the keys of all proxied sessions. Two instances may have told
// the same one. The zero value is empty.
type cancelKeys struct {
	mu     sync.Mutex // guards the following
	routes map[string][]*cancelRoute
}

// add takes a key, as it stands in BackendKeyData: pid and secret.
func (k *cancelKeys) add(key string, r *cancelRoute) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.routes == nil {
		k.routes = map[string][]*cancelRoute{}
	}
	k.routes[key] = append(k.routes[key], r)
}

// remove forgets a key that was added for a route.
func (k *cancelKeys) remove(key string, r *cancelRoute) {
	k.mu.Lock()
	defer k.mu.Unlock()
	left := slices.DeleteFunc(k.routes[key], func(other *cancelRoute) bool { return other == r })
	if k.routes[key] = left; len(left) == 0 {
		delete(k.routes, key)
	}
}

// find returns the routes of a key.
func (k *cancelKeys) find(key string) []*cancelRoute {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.routes[key])
}

// cancelRequested sends a cancel request, given as a first packet without its
// length word, to the instances whose sessions it names: one, as a rule. It
// returns when they have dealt with it, as the client waits for that, or after
// ConnectTimeout each. Nobody is told whether the key was right.
func (s *Server) cancelRequested(ctx context.Context, c *console, body []byte) {
	s.stats.cancels.Add(1)
	if !s.allowed(c.app.peer.Addr()) || !s.grow() {
		return
	}
	defer s.shrink()
	s.apps.setState(c.app, "cancel")
	for _, r := range s.cancels.find(string(body[4:])) {
		if err := s.sendCancel(ctx, r, body); err != nil {
			s.log.Debug("cancel request not passed", "remote", r.at.String(), "err", err)
			continue
		}
		s.stats.cancelsPassed.Add(1)
	}
}

// sendCancel passes a request on and waits until the instance closes: then the
// signal was sent (postmaster.c, processCancelRequest).
func (s *Server) sendCancel(ctx context.Context, r *cancelRoute, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.ConnectTimeout)
	defer cancel()
	conn, err := dialInstance(ctx, r.at)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	h, err := r.sec.secure(ctx, conn)
	if err != nil {
		return err
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	return within(ctx, conn, "the end of the cancel request", func() error {
		if _, err := h.Write(append(packet, body...)); err != nil {
			return err
		}
		if h.secure != nil {
			_, err = io.Copy(io.Discard, io.LimitReader(h.secure, bufferSize))
		} else {
			_, err = io.Copy(io.Discard, io.LimitReader(conn, bufferSize))
		}
		return err
	})
}
