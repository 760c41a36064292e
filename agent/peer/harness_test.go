// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// eventually polls for a fact; the limit is generous because it decides nothing.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ok() {
			return
		}
		poll := time.NewTimer(2 * time.Millisecond)
		<-poll.C
	}
	t.Fatalf("not seen within 20 s: %s", what)
}

// startLoop runs a loop until the test ends.
func startLoop(t *testing.T) *Loop {
	t.Helper()
	l, err := NewLoop(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("loop: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l
}

// on runs fn on the loop and waits for it.
func on[T any](l *Loop, fn func() T) T {
	done := make(chan T, 1)
	l.Do(func() { done <- fn() })
	return <-done
}

// proxy forwards one connection and can stop forwarding one way.
type proxy struct {
	addr netip.AddrPort
	deaf chan struct{}
}

func newProxy(t *testing.T, to netip.AddrPort) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: netip.MustParseAddrPort(ln.Addr().String()), deaf: make(chan struct{})}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { ln.Close() })
	wg.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		up, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer up.Close()
		wg.Go(func() { p.swallow(conn, up) })
		_, _ = io.Copy(up, conn)
	})
	return p
}

// swallow forwards from up to conn until deafened, then reads and drops.
func (p *proxy) swallow(conn, up net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-p.deaf:
		default:
			_, _ = conn.Write(buf[:n])
		}
	}
}

func (p *proxy) deafen() { close(p.deaf) }
