// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// mallory is a host that reads the path, sends from every address, and has a key
// of the right name.
type mallory struct {
	*world
	host   *agenttest.Host
	forger *forger
	addrs  []netip.Addr
	ring   *key.Ring
	target netip.AddrPort // the watchdog

	asked    atomic.Int64 // questions that got an answer
	longer   atomic.Int64 // answers longer than their question
	admitted atomic.Int64 // answers other than a refusal to who has no key
}

func (w *world) mallory() *mallory {
	w.Helper()
	m := &mallory{world: w, host: w.lab.Host("mallory"), ring: w.attackRing(), target: netip.AddrPortFrom(w.db1.Addr4, portHeartbeat)}
	m.forger, m.addrs = w.forge(m.host), w.addresses(m.host, 250)
	return m
}

// anybody is one of mallory's addresses with any port.
func (m *mallory) anybody() netip.AddrPort {
	return netip.AddrPortFrom(m.addrs[mathrand.N(len(m.addrs))], uint16(1024+mathrand.N(60000)))
}

// every calls do once per tick until the attack is over.
func every(ctx context.Context, tick time.Duration, do func()) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do()
		}
	}
}

// newHello is a HELLO with a nonce of its own, sealed with mallory's key.
func (m *mallory) newHello(k *key.Key) wire.Frame {
	f := wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{IntervalMS: 100, TimeoutMS: 1000}}
	_, _ = rand.Read(f.Hello.Conmgr[:])
	_, _ = rand.Read(f.Hello.Nonce[:])
	if k != nil {
		f.Hello.Key = k.ID()
	}
	return f
}

func sealed(f *wire.Frame, k *key.Key) []byte {
	b := wire.Append(nil, f)
	if k != nil {
		k.SealHello(b)
	}
	return b
}

// garbage is 4,000 datagrams of anything per second, from 250 addresses.
func (m *mallory) garbage(ctx context.Context) {
	every(ctx, time.Millisecond, func() {
		for range 4 {
			b := make([]byte, mathrand.N(1400))
			_, _ = rand.Read(b)
			m.forger.udp(m.anybody(), m.target, b)
		}
	})
}

// helloFlood is 3,000 HELLOs per second from addresses that never return the
// cookie, the client's own among them.
func (m *mallory) helloFlood(ctx context.Context) {
	every(ctx, time.Millisecond, func() {
		for range 3 {
			f := m.newHello(m.ring.First())
			from := m.anybody()
			if mathrand.N(10) == 0 {
				from = netip.AddrPortFrom(m.client.Addr4, from.Port())
			}
			m.forger.udp(from, m.target, sealed(&f, m.ring.First()))
		}
	})
}

// cookieFlood is 250 addresses that return the cookie again and again, some
// without a key.
func (m *mallory) cookieFlood(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for i, a := range m.addrs {
		conn, err := m.host.DialWith(ctx, &net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))}, "udp", m.target.String())
		if err != nil {
			continue // the attack is over
		}
		k := m.ring.First()
		if i%3 == 0 {
			k = nil
		}
		all.Go(func() {
			defer conn.Close()
			every(ctx, 100*time.Millisecond, func() { m.handshake(conn, k) })
		})
	}
}

// handshake asks with a HELLO, returns the cookie, and reads what it gets.
func (m *mallory) handshake(conn net.Conn, k *key.Key) {
	f, buf := m.newHello(k), make([]byte, 2048)
	for range 2 {
		question := sealed(&f, k)
		_, err := conn.Write(question)
		_ = conn.SetReadDeadline(time.Now().Add(answerTime))
		n, readErr := conn.Read(buf)
		if err != nil || readErr != nil {
			return
		}
		m.asked.Add(1)
		if n > len(question) {
			m.longer.Add(1)
		}
		var answer wire.Frame
		if wire.Parse(buf[:n], &answer) != nil || answer.Type != wire.TypeCookie {
			return
		}
		f.Hello.Cookie = answer.Cookie.Cookie
	}
}

// inConmgrsName sends to the watchdog, from conmgr's address and port, what one
// who reads the path can: forged, mangled, replayed and reflected frames.
func (m *mallory) inConmgrsName(ctx context.Context) {
	every(ctx, 100*time.Millisecond, func() {
		o := m.overhear()
		other := netip.AddrPortFrom(o.conmgr.Addr(), o.conmgr.Port()^1)
		for ahead := range uint64(4) {
			m.forger.udp(o.conmgr, m.target, o.goodbye(m.ring.First(), o.seq+50<<(8*ahead)))
		}
		for _, frame := range append(latest(o.up, 50), o.helloBytes) {
			m.forger.udp(o.conmgr, m.target, frame)
			m.forger.udp(other, m.target, frame)
			m.forger.udp(m.anybody(), m.target, frame)
		}
		for _, frame := range latest(o.down, 50) {
			m.forger.udp(o.conmgr, m.target, frame)
		}
		for _, frame := range mangled(o.up[mathrand.N(len(o.up))]) {
			m.forger.udp(o.conmgr, m.target, frame)
		}
	})
}

// inTheWatchdogsName sends the like to conmgr, from the watchdog's address.
func (m *mallory) inTheWatchdogsName(ctx context.Context) {
	every(ctx, 100*time.Millisecond, func() {
		o := m.overhear()
		for ahead := range uint64(4) {
			m.forger.udp(m.target, o.conmgr, o.verdict(m.ring.First(), uint64(len(o.down))+50<<(8*ahead)))
		}
		for _, frame := range m.answers(&o) {
			m.forger.udp(m.target, o.conmgr, frame)
		}
		for _, frame := range append(latest(o.down, 50), latest(o.up, 50)...) {
			m.forger.udp(m.target, o.conmgr, frame)
		}
		for _, frame := range mangled(o.down[mathrand.N(len(o.down))]) {
			m.forger.udp(m.target, o.conmgr, frame)
		}
	})
}

// answers are all that a watchdog may answer to the overheard HELLO.
func (m *mallory) answers(o *overheard) (all [][]byte) {
	add := func(f wire.Frame) { all = append(all, wire.Append(nil, &f)) }
	nonce := o.hello.Hello.Nonce
	cookie := wire.Cookie{Echo: nonce}
	_, _ = rand.Read(cookie.Cookie[:])
	add(wire.Frame{Header: wire.Header{Type: wire.TypeCookie, Seq: 1}, Cookie: cookie})
	for code := range wire.Code(10) {
		add(wire.Frame{Header: wire.Header{Type: wire.TypeRefuse, Seq: 1}, Refuse: wire.Refuse{Code: code, Limit: mathrand.Uint32(), Echo: nonce}})
	}
	welcome := o.welcome
	welcome.Session++
	add(welcome)
	add(wire.Frame{Header: wire.Header{Type: wire.TypeBye, Session: o.welcome.Session, Seq: 1 << 40}, Bye: wire.Bye{Kind: wire.ByeStop}})
	return all
}
