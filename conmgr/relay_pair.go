// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// towards is where a socket of a relay, or a lane, leads.
type towards int

const (
	towardsInstance towards = iota
	towardsClient
)

// other is where a lane comes from, and what is read from a socket goes.
func (w towards) other() towards { return 1 - w }

// pair is a relay in clear text whose sockets belong to a loop alone. It is the holder
// of its application.
//
//	up -> lost (tell) -> closed (release)
//	  \________________/  both ways have ended, an error, kill
type pair struct {
	mu     sync.Mutex // guards the following, and what is done with the sockets
	lost   bool       // the client was told: nothing passes any more
	closed bool
	queued bool   // in loop.again
	broken bool   // a socket failed: bytes may be missing
	kept   bool   // locked until loop.sends are flushed: of the loop's goroutine alone
	fd     [2]int // by the side that the socket leads to
	lanes  [2]lane
	last   *lane // that has read something
	oneWay int64 // bytes that it has read since the other one did

	loop *relayLoop
	slot int32
	done chan struct{} // closed with the pair
}

// newPair takes two sockets over from the runtime's poller, and gives them to the
// loop. An error leaves them as they are. g reads along what the instance says.
func newPair(l *relayLoop, client, instance *net.TCPConn, g *greeting) (*pair, error) {
	p := &pair{loop: l, done: make(chan struct{}), fd: [2]int{-1, -1}}
	for side, conn := range [2]*net.TCPConn{towardsInstance: instance, towardsClient: client} {
		fd, err := duplicate(conn)
		if err != nil {
			p.closeSockets()
			return nil, err
		}
		p.fd[side] = fd
	}
	p.lanes[towardsClient].greeting = g
	for w := range p.lanes {
		p.lanes[w].src, p.lanes[w].dst = p.fd[towards(w).other()], p.fd[w]
		p.lanes[w].pair, p.lanes[w].total = p, l.total[w]
	}
	p.mu.Lock() // until the runtime's poller has let go of them
	defer p.mu.Unlock()
	if err := l.add(p); err != nil {
		p.closed = true // should an event of the first one have come
		p.closeSockets()
		return nil, err
	}
	_ = client.Close()
	_ = instance.Close()
	return p, nil
}

// duplicate returns another descriptor of the socket, which does not block either.
func duplicate(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	rawErr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if rawErr != nil {
		return -1, rawErr
	}
	return fd, err
}

// take does what an event of one of the sockets makes possible. It reports false when
// nothing passes any more.
func (p *pair) take(l *relayLoop, side towards, events uint32) bool {
	p.enter(l)
	defer p.leave()
	if p.lost || p.closed {
		return false
	}
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	from, to := &p.lanes[side.other()], &p.lanes[side]
	if events&(unix.EPOLLIN|end) != 0 {
		from.readable = true
	}
	if events&end != 0 {
		from.ending = true
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		to.blocked = false
	}
	p.move(l)
	return true
}

// goOn does what was left when the turn before was over.
func (p *pair) goOn(l *relayLoop) {
	p.enter(l)
	defer p.leave()
	p.queued = false
	p.move(l)
}

// enter locks the pair for the loop's goroutine.
func (p *pair) enter(l *relayLoop) {
	if p.kept || l.sends.full() {
		l.sends.flush()
	}
	p.mu.Lock()
}

// leave unlocks it, unless messages of it are still to be sent.
func (p *pair) leave() {
	if !p.kept {
		p.mu.Unlock()
	}
}

// move lets both lanes pass what they can.
func (p *pair) move(l *relayLoop) {
	if p.lost || p.closed {
		return
	}
	for i := range p.lanes {
		more, err := p.lanes[i].move(l)
		if err != nil {
			p.broken = true
			break
		}
		if more && !p.queued {
			p.queued = true
			l.again = append(l.again, p)
		}
	}
	switch {
	case p.broken && !p.kept: // else flush does it: its sends need the sockets
		p.fail()
	case p.lanes[towardsInstance].finished && p.lanes[towardsClient].finished:
		p.close()
	}
}

// fail resets both sides.
func (p *pair) fail() {
	p.reset(towardsInstance)
	p.reset(towardsClient)
	p.close()
}

// tell ends the client's side: with RST if bytes are held back that it will never get,
// so that nobody takes a part for the whole; else with FIN. The socket stays, as to
// close it takes longer.
func (p *pair) tell([]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost || p.closed {
		return
	}
	p.lost = true
	fd := p.fd[towardsClient]
	if p.lanes[towardsClient].holds() || quickFinish(fd) != nil {
		_ = quickReset(fd)
	}
}

// insist breaks the connection of a client that does not take what was sent: FIN is
// behind that, and a write that waits for us would not end.
func (p *pair) insist() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	const fin = 1 // it counts as a byte
	if n, err := quickUnsent(p.fd[towardsClient]); err == nil && n > fin {
		_ = quickReset(p.fd[towardsClient])
	}
}

// release ends the instance's side in the same way, so that no dead peer is sent
// retransmissions, and the pair.
func (p *pair) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if n, err := quickUnsent(p.fd[towardsInstance]); err == nil && n > 0 || p.lanes[towardsInstance].holds() {
		p.reset(towardsInstance)
	}
	p.close()
}

// kill resets both sides.
func (p *pair) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.fail()
}

// reset lets close send RST, whatever is on its way.
func (p *pair) reset(side towards) {
	_ = unix.SetsockoptLinger(p.fd[side], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// close ends the pair.
func (p *pair) close() {
	p.closed = true
	p.loop.remove(p)
	for i := range p.lanes {
		p.lanes[i].chunk.free()
	}
	p.closeSockets()
	close(p.done)
}

func (p *pair) closeSockets() {
	for side, fd := range p.fd {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		p.fd[side] = -1
	}
}
