// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"math"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// send completes f's header and appends it to out.
func (m *Machine) send(now mono.Instant, f wire.Frame, out *Output) {
	f.Session, f.Seq = m.session, m.seq
	m.sent[m.seq%sentRing] = wrapped(now)
	m.seq++
	m.stats.Sent++
	out.Frames = append(out.Frames, f)
}

func (m *Machine) hello(now mono.Instant, out *Output) {
	m.helloAt = now.Add(m.askEvery())
	m.send(now, wire.Frame{
		Header: wire.Header{Type: wire.TypeHello},
		Hello: wire.Hello{
			Conmgr: m.cfg.Self, Nonce: m.shake.nonce,
			IntervalMS: millis(m.cfg.Interval), TimeoutMS: millis(m.cfg.Timeout),
			Incarnation: m.cfg.Incarnation, Resumes: m.previous, Key: m.shake.key, Cookie: m.shake.cookie,
		},
	}, out)
}

func (m *Machine) welcome(now mono.Instant, out *Output) {
	var flags wire.Flags
	if m.shake.ended {
		flags = wire.FlagEnded
	}
	m.send(now, wire.Frame{
		Header: wire.Header{Type: wire.TypeWelcome, Flags: flags},
		Welcome: wire.Welcome{
			Watchdog: m.cfg.Self, Incarnation: m.cfg.Incarnation, Echo: m.shake.nonce,
			Nonce: m.shake.welcome, Key: m.shake.key,
			IntervalMS: millis(m.cfg.Interval), TimeoutMS: millis(m.cfg.Timeout),
		},
	}, out)
}

// beat sends one heartbeat. The instance state goes along only once the session
// is armed: nobody learns it by a HELLO alone.
func (m *Machine) beat(now mono.Instant, flags wire.Flags, out *Output) {
	if m.link != linkOpen {
		return
	}
	f := wire.Frame{
		Header: wire.Header{Type: wire.TypeBeat, Flags: flags},
		Beat: wire.Beat{
			Ack: m.heardSeq, AckDelayUS: micros(now.Sub(m.heardAt)),
			Lost: m.lost, Received: m.received, State: m.state, Reason: m.why,
		},
	}
	if m.cfg.Role == Active {
		f.Flags |= m.signal
	}
	if m.cfg.Instance != nil && Armed(m.state) {
		f.Flags |= wire.FlagState
		f.Beat.Instance = *m.cfg.Instance
	}
	m.send(now, f, out)
}

// wrapped is an instant in microseconds as a counter that wraps around after 71
// minutes, far longer than any round trip.
func wrapped(i mono.Instant) uint32 { return uint32(int64(i) / int64(time.Microsecond)) }

func millis(d time.Duration) uint32 { return saturate(d.Milliseconds()) }

func micros(d time.Duration) uint32 { return saturate(d.Microseconds()) }

func saturate(v int64) uint32 { return uint32(min(max(v, 0), math.MaxUint32)) }
