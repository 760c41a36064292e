// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

func TestCaptureTellsWhenTheKernelReceived(t *testing.T) {
	l := MustLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	for _, tt := range []struct {
		name   string
		aa, ba netip.Addr
	}{{"IPv4", a.Addr4, b.Addr4}, {"IPv6", a.Addr6, b.Addr6}} {
		t.Run(tt.name, func(t *testing.T) {
			w, other := mustWire(t, a, b, tt.ba), mustWire(t, a, b, tt.ba)
			c := MustCapture(t, b, uint16(w.dest.(*net.UDPAddr).Port))
			other.send(t, 1)
			before := clock.Now()
			w.send(t, 3)
			after := clock.Now()
			if n := w.received(t); n != 3 {
				t.Fatalf("received %d of 3", n)
			}
			at := MustLastReceived(t, c, tt.aa)
			// The path is a function call: received before send returned. The
			// conversion reads two clocks one after the other.
			const slack = time.Millisecond
			if at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
				t.Errorf("received at %d, sent between %d and %d", at, before, after)
			}
			if received, sent, err := c.Frames(tt.aa); err != nil || received != 3 || sent != 0 {
				t.Errorf("frames: %d received, %d sent, %v; want 3 and 0", received, sent, err)
			}

			MustFault(t, b.Cut)
			defer MustFault(t, b.Heal)
			w.send(t, 2)
			if again := MustLastReceived(t, c, tt.aa); again != at {
				t.Errorf("a dropped datagram counts as received, %v later", again.Sub(at))
			}
		})
	}
}

// A gap is counted when it ends, and taken once.
func TestCaptureMeasuresGaps(t *testing.T) {
	c := &Capture{received: map[netip.Addr]traffic{}, sent: map[netip.Addr]traffic{}, late: 30 * time.Millisecond}
	from, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	packet := make([]byte, 20+8+4)
	packet[0], packet[3], packet[9] = 0x45, byte(len(packet)), 17
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	for _, ms := range []int{1000, 1020, 1060, 1090, 1091} {
		c.addLocked(packet, mono.Instant(ms)*mono.Instant(time.Millisecond), new(unix.SockaddrLinklayer))
	}
	for _, key := range []netip.Addr{from, {}} {
		if got, want := c.received[key].gaps, (Gaps{Longest: 40 * time.Millisecond, Late: 1}); got != want {
			t.Errorf("%v: got %+v, want %+v", key, got, want)
		}
	}
}

func TestTakeGapsTakesOnce(t *testing.T) {
	l := MustLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	w := mustWire(t, a, b, b.Addr4)
	c := MustCapture(t, b, uint16(w.dest.(*net.UDPAddr).Port))
	c.CountGaps(time.Nanosecond)
	w.send(t, 3)
	w.received(t)
	if g, err := c.TakeGaps(a.Addr4); err != nil || g.Longest == 0 || g.Late != 2 {
		t.Errorf("got %+v, %v; want two gaps", g, err)
	}
	if g, err := c.TakeGaps(a.Addr4); err != nil || g != (Gaps{}) {
		t.Errorf("taken again: %+v, %v", g, err)
	}
}

func TestCaptureIgnoresBareAcknowledgements(t *testing.T) {
	l := MustLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	listener, err := b.Listen(t.Context(), "tcp", netip.AddrPortFrom(b.Addr4, 7000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := MustCapture(t, b, 7000)
	conn, err := a.Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if received, sent, err := c.Frames(netip.Addr{}); err != nil || received != 0 || sent != 0 {
		t.Errorf("after connect: %d received, %d sent, %v; want none", received, sent, err)
	}
	// The server speaks; the client's kernel only acknowledges.
	if _, err := server.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if _, err := conn.Read(buf); err != nil {
		t.Fatal(err)
	}
	if received, sent, err := c.Frames(a.Addr4); err != nil || received != 0 || sent != 1 {
		t.Errorf("after the server spoke: %d received, %d sent, %v; want 0 and 1", received, sent, err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(buf); err != nil {
		t.Fatal(err)
	}
	if received, _, err := c.Frames(a.Addr4); err != nil || received != 1 {
		t.Errorf("after the client spoke: %d received, %v; want 1", received, err)
	}
}

// The time of a packet is not later than the packet, though the processor is taken
// away between the looks at both clocks.
func TestBootTime(t *testing.T) {
	if err := KeepBusy(t.Context()); err != nil {
		t.Fatal(err)
	}
	const slack = 100 * time.Microsecond
	for range 5_000 {
		var stamp unix.Timespec
		before := clock.Now()
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &stamp); err != nil {
			t.Fatal(err)
		}
		after := clock.Now()
		at, err := bootTime(stamp)
		if err != nil {
			t.Fatal(err)
		}
		if at < before.Add(-slack) || at > after.Add(slack) {
			t.Fatalf("%v: expected between %v and %v", at, before, after)
		}
	}
}
