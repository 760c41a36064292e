// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

var tapOptions = Options{Hosts: []string{"client", "db1"}, Tap: []string{"client"}}

func TestTapHostCarriesTraffic(t *testing.T) {
	l := MustLabWith(t, tapOptions)
	client, db1 := l.Host("client"), l.Host("db1")
	for name, addr := range map[string]netip.Addr{"IPv4": db1.Addr4, "IPv6": db1.Addr6} {
		t.Run("TCP "+name, func(t *testing.T) { echoMegabyte(t, client, db1, addr) })
	}
	for _, way := range []struct {
		name     string
		from, to *Host
		addr     netip.Addr
	}{
		{"UDP IPv4 from the tap", client, db1, db1.Addr4},
		{"UDP IPv6 from the tap", client, db1, db1.Addr6},
		{"UDP IPv4 to the tap", db1, client, client.Addr4},
		{"UDP IPv6 to the tap", db1, client, client.Addr6},
	} {
		t.Run(way.name, func(t *testing.T) {
			w := mustWire(t, way.from, way.to, way.addr)
			w.send(t, 20)
			if got := w.received(t); got != 20 {
				t.Errorf("%d of 20 datagrams arrived", got)
			}
		})
	}
}

// echoMegabyte sends more than any queue on the way holds.
func echoMegabyte(t *testing.T, from, to *Host, addr netip.Addr) {
	t.Helper()
	listener, err := to.Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go echoOne(listener)
	conn, err := from.Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("the echo differs")
	}
}

// echoOne sends back what its one connection brings.
func echoOne(listener net.Listener) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
}

// carrierChanges reads the kernel's counter, which no throttle delays.
func carrierChanges(t *testing.T, h *Host) int {
	t.Helper()
	var n int
	err := h.Do(func() error {
		text, err := os.ReadFile("/sys/class/net/eth0/carrier_changes")
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTapCarrierGoesAndComes(t *testing.T) {
	l := MustLabWith(t, tapOptions)
	client, db1 := l.Host("client"), l.Host("db1")
	out, in := mustWire(t, client, db1, db1.Addr4), mustWire(t, db1, client, client.Addr6)
	for range 3 {
		before := carrierChanges(t, client)
		MustFault(t, client.Unplug)
		if got := carrierChanges(t, client); got != before+1 {
			t.Errorf("%d changes of carrier after the loss, want %d", got, before+1)
		}
		out.send(t, 3)
		in.send(t, 3)
		if got := out.received(t) + in.received(t); got != 0 {
			t.Errorf("%d datagrams passed an unplugged cable", got)
		}
		MustFault(t, client.Plug)
		if got := carrierChanges(t, client); got != before+2 {
			t.Errorf("%d changes of carrier after the return, want %d", got, before+2)
		}
		out.send(t, 3)
		in.send(t, 3)
		if there, back := out.received(t), in.received(t); there != 3 || back != 3 {
			t.Errorf("%d and %d of 3 datagrams pass after plugging in", there, back)
		}
	}
}

// announcements reports when rtnetlink tells that the host's eth0 has no carrier.
func announcements(t *testing.T, h *Host) <-chan mono.Instant {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := h.Do(func() error { return netlink.LinkSubscribe(updates, done) }); err != nil {
		t.Fatal(err)
	}
	lost := make(chan mono.Instant, 64)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for u := range updates {
			if u.Attrs().Name == "eth0" && u.Header.Type == unix.RTM_NEWLINK && u.IfInfomsg.Flags&unix.IFF_LOWER_UP == 0 {
				lost <- clock.Now()
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-finished
	})
	return lost
}

func TestLossWithinTheThrottleIsAnnouncedLate(t *testing.T) {
	l := MustLabWith(t, tapOptions)
	client := l.Host("client")
	lost := announcements(t, client)
	for range 2 { // the second time the lab's own device is there already
		began, err := l.Throttle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := carrierChanges(t, client)
		fault := MustFault(t, client.Unplug)
		changes, counted := carrierChanges(t, client), clock.Now()
		if changes != before+1 {
			t.Errorf("%d changes of carrier right after the loss, want %d", changes, before+1)
		}
		select {
		case at := <-lost:
			t.Logf("lost %v after the throttle began: counter by %v, rtnetlink after %v",
				fault.Before.Sub(began.After), counted.Sub(fault.Before), at.Sub(fault.Before))
			if at.Before(counted) {
				t.Error("rtnetlink told of the loss before the counter was read: no throttle")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("rtnetlink never told of the loss")
		}
		MustFault(t, client.Plug)
	}
}

func TestCloseLeavesNothingOfTaps(t *testing.T) {
	NeedLab(t)
	NeedTap(t)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	l, err := NewWith(t.Context(), tapOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Throttle(t.Context()); err != nil {
		t.Error(err)
	}
	// With the namespaces held, devices would stay if they had not been removed.
	spaces := make(map[string]netns.NsHandle)
	for _, name := range l.record.Namespaces {
		if spaces[name], err = netns.GetFromName(name); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(int(spaces[name])) }()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, space := range spaces {
		for _, device := range devicesIn(t, space) {
			if device.Type() == "tuntap" {
				t.Errorf("%s is left in %s", device.Attrs().Name, name)
			}
		}
	}
	if got := openFiles(t) - len(spaces); got > files { // others may have closed theirs
		t.Errorf("%d open files, %d before", got, files)
	}
	Eventually(t, 5*time.Second, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func devicesIn(t *testing.T, space netns.NsHandle) []netlink.Link {
	t.Helper()
	h, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	return links
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
