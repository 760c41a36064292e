// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// doorServer listens on loopback and serves each connection with serve.
func doorServer(t *testing.T, serve func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestDoor(t *testing.T) {
	t.Parallel()
	question := []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
	read := func(c net.Conn) []byte {
		b := make([]byte, 8)
		_, _ = io.ReadFull(c, b)
		return b
	}
	answer := func(b string) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			if got := read(c); !bytes.Equal(got, question) {
				t.Errorf("asked % x, want % x", got, question)
			}
			_, _ = c.Write([]byte(b))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("after the answer read %d, %v: want a FIN and nothing else", n, err)
			}
			_ = c.Close()
		}
	}
	tests := []struct {
		name  string
		serve func(*net.TCPConn)
		want  DoorOutcome
	}{
		{"yes", answer("G"), DoorAnswers},
		{"no", answer("N"), DoorAnswers},
		{"error", func(c *net.TCPConn) {
			read(c)
			_, _ = c.Write([]byte("E could not fork"))
			_ = c.Close()
		}, DoorAnswers},
		{"reset", func(c *net.TCPConn) {
			read(c)
			_ = c.SetLinger(0)
			_ = c.Close()
		}, DoorRefused},
		{"closed without a byte", func(c *net.TCPConn) {
			read(c)
			_ = c.Close()
		}, DoorNoAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := doorServer(t, tt.serve)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if got := Door(ctx, new(net.Dialer).DialContext, addr); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDoorRefusedPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	_ = l.Close()
	if got := Door(t.Context(), new(net.Dialer).DialContext, addr); got != DoorRefused {
		t.Errorf("got %s, want refused", got)
	}
}

func TestDoorDialErrors(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]DoorOutcome{
		syscall.ECONNREFUSED: DoorRefused, syscall.ECONNRESET: DoorRefused,
		syscall.EHOSTUNREACH: DoorNoAnswer, syscall.ENETUNREACH: DoorNoAnswer, syscall.ETIMEDOUT: DoorNoAnswer,
	} {
		dial := func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: errno}
		}
		if got := Door(t.Context(), dial, netip.AddrPort{}); got != want {
			t.Errorf("%v is %s, want %s", errno, got, want)
		}
	}
}

// A stopped postmaster accepts (its kernel does) and never says a byte.
func TestDoorStoppedPostmaster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := func(_ context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != "[2001:db8::1]:5432" {
				t.Errorf("dialled %s %s", network, address)
			}
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		got := Door(ctx, dial, netip.MustParseAddrPort("[2001:db8::1]:5432"))
		if took := time.Since(start); got != DoorNoAnswer || took != 2*time.Second {
			t.Errorf("got %s after %v, want no answer after 2 s", got, took)
		}
	})
}
