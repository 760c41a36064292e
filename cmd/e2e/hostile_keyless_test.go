// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Without keys whoever is on a host of watchdog.clients may open sessions: he can
// neither take more than his share nor end those of the conmgr beside him. A host
// outside watchdog.clients gets nothing at all. Where another live session of
// the address counts for nothing (shared_address), his goodbye ends everybody.
func TestHostileKeyless(t *testing.T) {
	prove(t, row{
		name: "hostile-keyless", v4Only: true, fastOnly: true, tcpOnly: true,
		with: func(s *setup) {
			besieged(s)
			s.agents["watchdog.clients"] = "10.99.0.1/32"
		},
		off: func(s *setup) { s.agents["watchdog.shared_address"] = "terminate" },
		run: func(w *world) {
			m := w.mallory()
			v := w.victims()
			v.lineBound = localBound
			l := &local{world: w}
			l.takesHisShare()
			v.underAttack([]func(context.Context){l.neverReads, l.neverReads, l.hurries, l.comesAndGoes, m.streams, m.outside}, func() { m.connects(2000, nil) })
			w.figure("frames to who never reads", "%d", l.unread.Load())
			w.figure("sessions come and gone", "%d", l.gone.Load())
			if n := m.admitted.Load(); n > 0 {
				w.failf("%d answers to a host outside watchdog.clients were no refusal", n)
			}
			if m.asked.Load() == 0 || l.unread.Load() == 0 || l.gone.Load() == 0 {
				w.Fatal("there was no attack")
			}
			v.expectHealthy()
		},
	})
}

// outside are HELLOs from a host that is not in watchdog.clients.
func (m *mallory) outside(ctx context.Context) {
	every(ctx, 10*time.Millisecond, func() {
		f := m.newHello(nil)
		d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.anybody().Addr(), 0))}
		answer := m.talk(ctx, m.host, d, prefixed(sealed(&f, nil)))
		if answer == nil {
			return
		}
		m.asked.Add(1)
		if answer.Type != wire.TypeRefuse || answer.Refuse.Code != wire.CodeAddress {
			m.admitted.Add(1)
		}
	})
}

// local is somebody on the client host.
type local struct {
	*world
	unread atomic.Int64 // frames sent by who never reads
	gone   atomic.Int64 // sessions armed and ended
}

// intruder is a session of his, which he need not read.
type intruder struct {
	net.Conn
	session, seq uint64
}

// intrude opens a session with timers; nil when it is refused, with the reason.
func (l *local) intrude(ctx context.Context, interval, timeout time.Duration) (*intruder, wire.Code) {
	conn, err := l.client.Dial(ctx, "tcp", netip.AddrPortFrom(l.db1.Addr4, portHeartbeat).String())
	if err != nil {
		return nil, 0
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	f := (&mallory{}).newHello(nil)
	f.Hello.IntervalMS, f.Hello.TimeoutMS = uint32(interval.Milliseconds()), uint32(timeout.Milliseconds())
	_, _ = conn.Write(prefixed(sealed(&f, nil)))
	_ = conn.SetReadDeadline(time.Now().Add(generous))
	// The two answers that there are end at the same place or behind it.
	const shorter = wire.PrefixSize + wire.HeaderSize + 24
	buf := make([]byte, 1024)
	n, err := io.ReadAtLeast(conn, buf, shorter)
	raw, _, _ := wire.Split(buf[:n])
	for raw == nil && err == nil {
		var more int
		more, err = conn.Read(buf[n:])
		n += more
		raw, _, _ = wire.Split(buf[:n])
	}
	if raw == nil || wire.Parse(raw, &f) != nil || f.Type != wire.TypeWelcome {
		_ = conn.Close()
		return nil, f.Refuse.Code
	}
	return &intruder{Conn: conn, session: f.Session, seq: 1}, 0
}

// beat sends one frame; it acknowledges the first beat unread, which arms.
func (i *intruder) beat(f wire.Frame) error {
	i.seq++
	f.Session, f.Seq = i.session, i.seq
	f.Beat.Ack, f.Beat.State = 2, wire.StateUp
	_ = i.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := i.Write(wire.AppendPrefixed(nil, &f))
	return err
}

// takesHisShare tries to open more sessions than an address may have, and ones
// with timers that are too short.
func (l *local) takesHisShare() {
	l.Helper()
	var all []*intruder
	for range 20 {
		i, code := l.intrude(l.Context(), time.Second, time.Second)
		if i != nil {
			all = append(all, i)
		} else if code != wire.CodePerAddress {
			l.failf("one session too many was refused with code %d", code)
		}
	}
	for _, i := range all {
		_ = i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBeat}})
	}
	if len(all) != 7 {
		l.failf("%d sessions of a local user: expected 7 beside conmgr's", len(all))
	}
	for _, i := range all {
		_ = i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBye}, Bye: wire.Bye{Kind: wire.ByeLeave}})
		_ = i.Close()
	}
	// Room again, once the watchdog has read that.
	l.expect("refused for its timers", func() bool {
		_, interval := l.intrude(l.Context(), time.Millisecond, time.Second)
		_, timeout := l.intrude(l.Context(), time.Second, time.Millisecond)
		return interval == wire.CodeInterval && timeout == wire.CodeTimeout
	})
}

// neverReads asks 500 times a second and reads no answer, for as long as the
// watchdog bears it.
func (l *local) neverReads(ctx context.Context) {
	var i *intruder
	every(ctx, 2*time.Millisecond, func() {
		if i == nil {
			if i, _ = l.intrude(ctx, 100*time.Millisecond, 10*time.Minute); i == nil {
				return
			}
		}
		if i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Flags: wire.FlagProbe}}) != nil {
			_ = i.Close()
			i = nil
			return
		}
		l.unread.Add(1)
	})
	if i != nil {
		_ = i.Close()
	}
}

// hurries has a session with the shortest timers there are (10 ms).
func (l *local) hurries(ctx context.Context) {
	for ctx.Err() == nil {
		i, _ := l.intrude(ctx, 10*time.Millisecond, 10*time.Millisecond)
		if i == nil {
			return
		}
		beats, stop := context.WithCancel(ctx)
		every(beats, 3*time.Millisecond, func() {
			_ = i.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := i.Read(make([]byte, 4096))
			if i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBeat}}) != nil || err != nil && !isTimeout(err) {
				stop() // ended by the watchdog: again
			}
		})
		stop()
		_ = i.Close()
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// comesAndGoes arms sessions and says goodbye, as a conmgr does that is stopped,
// each time in another one's name.
func (l *local) comesAndGoes(ctx context.Context) {
	every(ctx, 20*time.Millisecond, func() {
		i, _ := l.intrude(ctx, 100*time.Millisecond, time.Second)
		if i == nil {
			return
		}
		defer i.Close()
		_ = i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBeat}})
		if i.beat(wire.Frame{Header: wire.Header{Type: wire.TypeBye}, Bye: wire.Bye{Kind: wire.ByeStop}}) == nil {
			l.gone.Add(1)
		}
	})
}
