// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// prefixed puts the length in front of a frame, as TCP carries it.
func prefixed(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...)
}

// connects opens TCP connections from mallory's addresses in turn and writes
// something to each; they stay open until the test ends. How many there are at
// the end of the attack is up to the watchdog.
func (m *mallory) connects(n int, write []byte) {
	m.Helper()
	var fds []int
	m.must(m.host.Do(func() error {
		for i := range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: m.addrs[i%len(m.addrs)].As4()})
			if err != nil {
				return err
			}
			if unix.Connect(fd, &unix.SockaddrInet4{Addr: m.target.Addr().As4(), Port: int(m.target.Port())}) == nil && len(write) > 0 {
				_, _ = unix.Write(fd, write) // may be evicted already
			}
		}
		return nil
	}))
	m.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
}

// answerTime is how long an attacker waits for an answer.
const answerTime = 100 * time.Millisecond

// talk opens a connection from a host, writes, and returns the first frame of the
// answer, nil for none within answerTime.
func (w *world) talk(ctx context.Context, from interface {
	DialWith(context.Context, *net.Dialer, string, string) (net.Conn, error)
}, d *net.Dialer, write []byte) *wire.Frame {
	conn, err := from.DialWith(ctx, d, "tcp", netip.AddrPortFrom(w.db1.Addr4, portHeartbeat).String())
	if err != nil {
		return nil
	}
	defer conn.Close()
	_, _ = conn.Write(write)
	_ = conn.SetReadDeadline(time.Now().Add(answerTime))
	buf := make([]byte, 1024)
	n, _ := conn.Read(buf)
	var f wire.Frame
	if raw, _, err := wire.Split(buf[:n]); err != nil || raw == nil || wire.Parse(raw, &f) != nil {
		return nil
	}
	return &f
}

// streams are TCP connections, 100 per second, that begin with anything but the
// right HELLO.
func (m *mallory) streams(ctx context.Context) {
	every(ctx, 10*time.Millisecond, func() {
		d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.anybody().Addr(), 0))}
		f := m.newHello(m.ring.First())
		hello := prefixed(sealed(&f, m.ring.First()))
		junk := make([]byte, 4096)
		_, _ = rand.Read(junk)
		beat := wire.AppendPrefixed(nil, &wire.Frame{Header: wire.Header{Type: wire.TypeBeat, Session: 1, Seq: 1}})
		all := [][]byte{junk, {0xff, 0xff, 0}, hello[:len(hello)-1], hello, beat, bytes.Repeat([]byte("GET / "), 500)}
		m.talk(ctx, m.host, d, all[mathrand.N(len(all))])
	})
}

// blindResets are TCP resets for conmgr's connection with guessed sequence
// numbers, to both ends.
func (m *mallory) blindResets(ctx context.Context) {
	o := m.overhear()
	every(ctx, time.Millisecond, func() {
		m.forger.reset(o.conmgr, m.target, mathrand.Uint32())
		m.forger.reset(m.target, o.conmgr, mathrand.Uint32())
	})
}

// localUser is somebody on the client host who cannot read the key.
func (m *mallory) localUser(ctx context.Context) {
	every(ctx, 20*time.Millisecond, func() {
		f := m.newHello(nil)
		if answer := m.talk(ctx, m.client, new(net.Dialer), prefixed(sealed(&f, nil))); answer != nil && (answer.Type != wire.TypeRefuse || answer.Refuse.Code != wire.CodeKey) {
			m.admitted.Add(1)
		}
	})
}
