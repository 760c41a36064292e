// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
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
// descriptors, and memory only while bytes move.
type relay struct {
	client   *net.TCPConn
	cancel   context.CancelFunc // of the connect
	greeting *greeting          // reads along at first; nil for nobody

	mu     sync.Mutex // guards the following
	state  relayState
	server *hop // set when up

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

// lose marks the loss and returns the state before.
func (r *relay) lose() relayState {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.state
	r.state = relayLost
	return before
}

// tell ends the client's side, or the attempt to connect. The notice is not
// for this protocol: what the bytes mean is not known here.
func (r *relay) tell([]byte) {
	switch r.lose() {
	case relayConnecting:
		r.cancel()
	case relayUp:
		endSide(r.client, &r.toClient, unix.SHUT_WR) // wakes the client, not yet our pumps
	}
}

// release ends the instance's side, and the pumps.
func (r *relay) release() {
	if server := r.instance(); server != nil {
		endSide(server.tcp, &r.toServer, unix.SHUT_RDWR)
		shutdown(r.client, unix.SHUT_RD)
	}
}

// kill resets the instance's side.
func (r *relay) kill() {
	r.lose()
	r.cancel()
	if server := r.instance(); server != nil {
		reset(server.tcp)
	}
}

func (r *relay) instance() *hop {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server
}

// endSide ends one side of a relay at a fault: with RST while bytes for it are
// unsent, so that nobody takes a part for the whole and no dead peer is sent
// retransmissions; else with FIN.
func endSide(conn *net.TCPConn, unsent *atomic.Int64, how int) {
	if unsent.Load() > 0 || !shutdown(conn, how) {
		reset(conn)
	}
}

// shutdown sends FIN unless bytes are not acknowledged by the peer (SIOCOUTQ);
// then it does nothing and reports false.
func shutdown(conn *net.TCPConn, how int) (done bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		if how != unix.SHUT_RD {
			if q, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ); err == nil && q > 0 {
				return
			}
		}
		done = unix.Shutdown(int(fd), how) == nil
	})
	return done
}

// run passes bytes until both directions have ended, then closes both sides.
func (r *relay) run(s *Server) {
	client, server := &hop{tcp: r.client}, r.instance()
	down := direction{dst: client, src: server, unsent: &r.toClient, total: &s.stats.bytesToClients, pipes: &s.pipes}
	up := direction{dst: server, src: client, unsent: &r.toServer, total: &s.stats.bytesToInstances, pipes: &s.pipes}
	var back sync.WaitGroup
	back.Go(func() { r.pump(&down, r.greeting) })
	r.pump(&up, nil)
	back.Wait()
	_ = server.tcp.Close()
	_ = r.client.Close()
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
