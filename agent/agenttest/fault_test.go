// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// wire is a datagram path from one host to another.
type wire struct {
	from, to net.PacketConn
	dest     net.Addr
}

func mustWire(t *testing.T, from, to *Host, addr netip.Addr) *wire {
	t.Helper()
	listen := func(h *Host) net.PacketConn {
		c, err := h.ListenPacket(t.Context(), "udp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	w := &wire{from: listen(from), to: listen(to)}
	port := w.to.LocalAddr().(*net.UDPAddr).Port
	w.dest = net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port)))
	return w
}

// send sends n datagrams; a cut must not show to the sender.
func (w *wire) send(t *testing.T, n int) {
	t.Helper()
	for range n {
		if _, err := w.from.WriteTo([]byte("ping"), w.dest); err != nil {
			t.Fatalf("the sender was told of the fault: %v", err)
		}
	}
}

// received counts what has arrived until nothing comes for a moment.
func (w *wire) received(t *testing.T) int {
	t.Helper()
	n, buf := 0, make([]byte, 16)
	for {
		if err := w.to.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.to.ReadFrom(buf); err != nil {
			return n
		}
		n++
	}
}

// onBothDevices runs a test with a host a on a veth, and with one on a tap.
func onBothDevices(t *testing.T, test func(*testing.T, *Lab)) {
	t.Run("veth", func(t *testing.T) { test(t, MustLab(t, "a", "b")) })
	t.Run("tap", func(t *testing.T) { test(t, MustLabWith(t, Options{Hosts: []string{"a", "b"}, Tap: []string{"a"}})) })
}

func TestFaultsDropWhatTheySay(t *testing.T) { onBothDevices(t, faultsDropWhatTheySay) }

func faultsDropWhatTheySay(t *testing.T, l *Lab) {
	a, b := l.Host("a"), l.Host("b")
	for _, tt := range []struct {
		name        string
		fault       func(context.Context) (Effect, error)
		there, back bool // packets from a to b and back arrive
		in, out     uint64
	}{
		{"cut", a.Cut, false, false, 5, 5},
		{"cut in", a.CutIn, true, false, 5, 0},
		{"cut out", a.CutOut, false, true, 0, 5},
		{"heal", a.Heal, true, true, 0, 0},
		{"all lost", func(ctx context.Context) (Effect, error) { return a.Loss(ctx, 100, 0) }, true, false, 5, 0},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			t.Run(tt.name+" "+family, func(t *testing.T) {
				addrA, addrB := a.Addr4, b.Addr4
				if family == "IPv6" {
					addrA, addrB = a.Addr6, b.Addr6
				}
				before := MustDropped(t, a)
				e := MustFault(t, tt.fault)
				defer MustFault(t, a.Heal)
				if !e.After.After(e.Before) {
					t.Errorf("effect from %v to %v", e.Before, e.After)
				}
				there, back := mustWire(t, a, b, addrB), mustWire(t, b, a, addrA)
				there.send(t, 5)
				back.send(t, 5)
				if got, want := there.received(t), 5*btoi(tt.there); got != want {
					t.Errorf("%d datagrams of a arrived, want %d", got, want)
				}
				if got, want := back.received(t), 5*btoi(tt.back); got != want {
					t.Errorf("%d datagrams to a arrived, want %d", got, want)
				}
				after := MustDropped(t, a)
				// Hosts announce their multicast groups now and then: not
				// fewer than ours, and nothing where no rule is.
				in, out := after.In-before.In, after.Out-before.Out
				if in < tt.in || out < tt.out || tt.in == 0 && in != 0 || tt.out == 0 && out != 0 {
					t.Errorf("counted %d in and %d out, want %d and %d", in, out, tt.in, tt.out)
				}
			})
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestLossLosesAShare(t *testing.T) {
	l := MustLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	MustFault(t, func(ctx context.Context) (Effect, error) { return a.Loss(ctx, 0, 20) })
	w := mustWire(t, a, b, b.Addr4)
	got := 0
	const rounds, batch = 20, 50 // small batches: the socket's buffer is not at stake
	for range rounds {
		w.send(t, batch)
		got += w.received(t)
	}
	lost := MustDropped(t, a).Out
	if int(lost)+got < rounds*batch { // more: the host's own announcements
		t.Errorf("%d lost and %d received of %d", lost, got, rounds*batch)
	}
	// 20 % of 1000, more than six standard deviations around it.
	if lost < 120 || lost > 280 {
		t.Errorf("lost %d of 1000 at 20 %%", lost)
	}
}

// What a capture of the port misses is what the injector has counted.
func TestLossOnCountsOnePort(t *testing.T) { onBothDevices(t, lossOnCountsOnePort) }

func lossOnCountsOnePort(t *testing.T, l *Lab) {
	a, b := l.Host("a"), l.Host("b")
	w, other := mustWire(t, a, b, b.Addr4), mustWire(t, a, b, b.Addr4)
	port := uint16(w.dest.(*net.UDPAddr).Port)
	sent, got := MustCapture(t, a, port), MustCapture(t, b, port)
	MustFault(t, func(ctx context.Context) (Effect, error) { return b.LossOn(ctx, port, 50, 0) })
	for range 10 {
		w.send(t, 20)
		other.send(t, 5)
		w.received(t)
	}
	if n := other.received(t); n != 50 {
		t.Errorf("%d of 50 datagrams to another port arrived", n)
	}
	_, left, err1 := sent.Frames(b.Addr4)
	arrived, _, err2 := got.Frames(a.Addr4)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	dropped := MustDropped(t, b)
	if left != 200 || left-arrived != int(dropped.In) || dropped.Out != 0 {
		t.Errorf("%d sent, %d arrived, %+v dropped", left, arrived, dropped)
	}
	// Half of 200, more than seven standard deviations around it.
	if arrived < 50 || arrived > 150 {
		t.Errorf("%d of 200 arrived at 50 %%", arrived)
	}
}

func TestDropPortDropsOnlyThePort(t *testing.T) {
	l := MustLab(t, "a", "b")
	a, b := l.Host("a"), l.Host("b")
	dropped, other := mustWire(t, a, b, b.Addr4), mustWire(t, a, b, b.Addr4)
	port := dropped.dest.(*net.UDPAddr).Port
	MustFault(t, func(ctx context.Context) (Effect, error) { return b.DropPort(ctx, uint16(port)) })
	dropped.send(t, 3)
	other.send(t, 3)
	if got := dropped.received(t); got != 0 {
		t.Errorf("%d datagrams to the port arrived", got)
	}
	if got := other.received(t); got != 3 {
		t.Errorf("%d of 3 datagrams to another port arrived", got)
	}
}

func TestUnplugTakesTheCarrier(t *testing.T) { onBothDevices(t, unplugTakesTheCarrier) }

func unplugTakesTheCarrier(t *testing.T, l *Lab) {
	a := l.Host("a")
	carrier := func(h *Host) string {
		var text []byte
		err := h.Do(func() (err error) {
			text, err = os.ReadFile("/sys/class/net/eth0/carrier")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	MustFault(t, a.Unplug)
	Eventually(t, 5*time.Second, "carrier lost", func() bool { return carrier(a) == "0" })
	if carrier(l.Host("b")) != "1" {
		t.Error("the other host lost its carrier too")
	}
	MustFault(t, a.Plug)
	Eventually(t, 5*time.Second, "carrier back", func() bool { return carrier(a) == "1" })
	w := mustWire(t, l.Host("b"), a, a.Addr6)
	w.send(t, 1)
	if w.received(t) != 1 {
		t.Error("no datagram arrives after plugging in")
	}
}

func TestFreezeStopsEveryProcess(t *testing.T) {
	l := MustLab(t, "a", "b")
	a := l.Host("a")
	dir, err := a.Mkdir("")
	if err == nil {
		dir, err = a.Mkdir("", "ticks")
	}
	if err != nil {
		t.Fatal(err)
	}
	// The parent and its child each touch a file as fast as they can.
	script := `f() { while :; do echo >>"$1"; sleep 0.01; done; }; f ` + dir + `/child & f ` + dir + `/parent`
	MustStart(t, a, Spec{Name: "ticker", Path: "/bin/sh", Args: []string{"-c", script}})
	size := func(name string) int64 {
		st, err := os.Stat(dir + "/" + name)
		if err != nil {
			return 0
		}
		return st.Size()
	}
	both := func() int64 { return size("parent") + size("child") }
	Eventually(t, 10*time.Second, "both tick", func() bool { return size("parent") > 3 && size("child") > 3 })
	MustFault(t, a.Freeze)
	frozenAt := both()
	Never(t, 100*time.Millisecond, "a frozen process ticks", func() bool { return both() != frozenAt })
	MustFault(t, a.Thaw)
	Eventually(t, 10*time.Second, "both tick again", func() bool { return both() > frozenAt+5 })
}
