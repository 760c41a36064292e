// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// relayState is how far a relay has come:
//
//	connecting -> up -> lost
//	          \_________/
type relayState uint8

const (
	relayConnecting relayState = iota
	relayUp
	relayLost
)

// relay passes bytes between a client and an instance. It holds two
// descriptors, and memory only while bytes move: in clear text a loop has them
// (pair), with TLS two goroutines.
type relay struct {
	client   *net.TCPConn
	raw      syscall.RawConn    // of client: made in time, as a fault is no time for garbage
	cancel   context.CancelFunc // of the connect
	greeting *greeting          // reads along at first; nil for nobody

	mu     sync.Mutex // guards the following
	state  relayState
	server *hop  // set when up
	pair   *pair // set when a loop has the sockets

	toClient, toServer atomic.Int64 // bytes read from one side, not yet taken by the other's kernel
}

// up takes the connection to the instance. It reports false when the instance
// was lost meanwhile.
func (r *relay) up(server *hop) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == relayLost {
		return false
	}
	r.state, r.server = relayUp, server
	return true
}

func (r *relay) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state == relayLost
}

// lose marks the loss and returns the state before, and who has the sockets.
func (r *relay) lose() (before relayState, p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.state = r.state, relayLost
	return before, r.pair
}

// tell ends the client's side, or the attempt to connect: with RST while bytes for
// it are unsent, so that nobody takes a part for the whole; else with FIN. The
// notice is not for this protocol: what the bytes mean is not known here.
func (r *relay) tell(notice []byte) {
	switch before, p := r.lose(); {
	case before == relayConnecting:
		r.cancel()
	case p != nil:
		p.tell(notice)
	case before == relayUp:
		// Wakes the client, not yet our pumps.
		if r.toClient.Load() > 0 || !ifSent(r.raw, quickFinish) {
			reset(r.client)
		}
	}
}

// insist is part of tell where goroutines have the sockets.
func (r *relay) insist() {
	if _, p := r.ends(); p != nil {
		p.insist()
	}
}

// release ends the instance's side in the same way, so that no dead peer is sent
// retransmissions, and the pumps.
func (r *relay) release() {
	server, p := r.ends()
	switch {
	case p != nil:
		p.release()
		return
	case server == nil:
		return
	}
	raw, err := server.tcp.SyscallConn()
	if err != nil || r.toServer.Load() > 0 || !ifSent(raw, func(int) error { return nil }) {
		reset(server.tcp)
	}
	_ = server.tcp.Close()
	_ = r.client.Close()
}

// kill resets the instance's side, and the client's if a loop has it.
func (r *relay) kill() {
	r.lose()
	r.cancel()
	if server, p := r.ends(); p != nil {
		p.kill()
	} else if server != nil {
		reset(server.tcp)
	}
}

func (r *relay) ends() (*hop, *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server, r.pair
}

// ifSent does something with a socket unless bytes are not acknowledged by the peer
// (SIOCOUTQ), and reports whether that worked.
func ifSent(conn syscall.RawConn, do func(fd int) error) (done bool) {
	_ = conn.Control(func(fd uintptr) {
		if n, err := quickUnsent(int(fd)); err != nil || n == 0 {
			done = do(int(fd)) == nil
		}
	})
	return done
}

// run passes bytes until both directions have ended, then closes both sides.
func (r *relay) run(s *Server, m *app) {
	if p := r.launch(s); p != nil {
		s.apps.hold(m, p)
		<-p.done
		return
	}
	client, server := &hop{tcp: r.client}, r.server
	down := direction{dst: client, src: server, unsent: &r.toClient, total: &s.stats.bytesToClients}
	up := direction{dst: server, src: client, unsent: &r.toServer, total: &s.stats.bytesToInstances}
	var back sync.WaitGroup
	back.Go(func() { r.pump(&down, r.greeting) })
	r.pump(&up, nil)
	back.Wait()
	_ = server.tcp.Close()
	_ = r.client.Close()
}

// launch gives a relay in clear text to a loop, unless it is lost, or the loop cannot
// take it: descriptors may be short for a moment.
func (r *relay) launch(s *Server) *pair {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != relayUp || r.server.secure != nil {
		return nil
	}
	p, err := newPair(s.loop(), r.client, r.server.tcp, r.greeting)
	if err != nil {
		return nil
	}
	r.pair = p
	return p
}

// pump passes one direction, through g until that has seen enough. The end of
// the stream is passed on as such (half close); any other error resets both
// sides, since bytes may be missing.
func (r *relay) pump(d *direction, g *greeting) {
	err := d.pass(g)
	if r.isLost() && !errors.Is(err, net.ErrClosed) {
		return // both sides are ended as they should
	}
	if err == io.EOF && d.dst.CloseWrite() == nil {
		return
	}
	reset(d.dst.tcp)
	reset(d.src.tcp)
}
