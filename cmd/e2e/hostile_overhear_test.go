// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// overheard is what one who reads the path between the client and db1 knows of
// the living session.
type overheard struct {
	conmgr, watchdog netip.AddrPort
	up, down         [][]byte // frames of conmgr, of the watchdog
	hello, welcome   wire.Frame
	helloBytes       []byte
	seq              uint64 // conmgr's highest
}

// overhear reads the path's trace so far.
func (w *world) overhear() (o overheard) {
	w.Helper()
	packets, err := w.captures[w.client].Traced()
	w.must(err)
	for _, p := range packets {
		if p.From == w.lab.Host("mallory") {
			continue
		}
		for _, raw := range w.frames(p.Payload) {
			var f wire.Frame
			if wire.Parse(raw, &f) != nil {
				continue
			}
			if !p.Sent {
				if f.Type == wire.TypeWelcome && p.Dst == o.conmgr {
					o.welcome = f
				}
				o.down = append(o.down, raw)
				continue
			}
			if f.Type == wire.TypeHello {
				o.hello, o.helloBytes, o.conmgr, o.watchdog, o.seq = f, raw, p.Src, p.Dst, 0
			}
			o.up, o.seq = append(o.up, raw), max(o.seq, f.Seq)
		}
	}
	return o
}

// frames takes the frames out of a packet of the session's transport.
func (w *world) frames(payload []byte) (frames [][]byte) {
	if w.udp {
		return [][]byte{payload}
	}
	for {
		raw, rest, err := wire.Split(payload)
		if raw == nil || err != nil {
			return frames
		}
		frames, payload = append(frames, raw), rest
	}
}

// latest returns the newest frames, at most n.
func latest(frames [][]byte, n int) [][]byte { return frames[max(0, len(frames)-n):] }

// attackRing is the key that the attacker has: of the right name, and of the
// right secret only if it was stolen.
func (w *world) attackRing() *key.Ring {
	w.Helper()
	line := agenttest.LabKey
	if !w.stolen {
		line = strings.Replace(agenttest.LabKey, "8f0c", "0c8f", 1)
	}
	ring, err := key.Parse("attacker", []byte(line))
	w.must(err)
	return ring
}

// goodbye is a BYE in conmgr's name in the overheard session, made with a key.
func (o *overheard) goodbye(k *key.Key, seq uint64) []byte {
	b := wire.Append(nil, &wire.Frame{
		Header: wire.Header{Type: wire.TypeBye, Session: o.welcome.Session, Seq: seq},
		Bye:    wire.Bye{Kind: wire.ByeStop},
	})
	s := o.keys(key.Conmgr, k)
	s.Seal(b)
	return b
}

// verdict is a BEAT in the watchdog's name which says that it has given the
// session up, made with a key.
func (o *overheard) verdict(k *key.Key, seq uint64) []byte {
	b := wire.Append(nil, &wire.Frame{
		Header: wire.Header{Type: wire.TypeBeat, Session: o.welcome.Session, Seq: seq},
		Beat:   wire.Beat{State: wire.StateDown, Reason: wire.ReasonTimeout},
	})
	s := o.keys(key.Watchdog, k)
	s.Seal(b)
	return b
}

// keys derives the session's keys as both its ends do.
func (o *overheard) keys(end key.End, k *key.Key) key.Session {
	return key.NewSession(end, k, key.Handshake{
		Conmgr: o.hello.Hello.Conmgr, Watchdog: o.welcome.Welcome.Watchdog,
		HelloNonce: o.hello.Hello.Nonce, WelcomeNonce: o.welcome.Welcome.Nonce, Session: o.welcome.Session,
	})
}

// mangled are a frame cut at every length, made too long, and with every byte of
// its header changed.
func mangled(frame []byte) (all [][]byte) {
	for n := range len(frame) {
		all = append(all, frame[:n])
	}
	for _, n := range []int{wire.MaxFrame - len(frame) + 1, 1400 - len(frame)} {
		all = append(all, append(bytes.Clone(frame), make([]byte, n)...))
	}
	for i := range wire.HeaderSize {
		b := bytes.Clone(frame)
		b[i] ^= 0x55
		all = append(all, b)
	}
	return all
}
