// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Bulk data passes whole and in order, both ways at once, mixed with small pieces.
func TestBulk(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	var all sync.WaitGroup
	for range 10 {
		client := mustDial(t, "tcp", f.proxy(0)).(*net.TCPConn)
		server := b.mustTake(t)
		for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
			all.Go(func() {
				for rest, n := data, 1; len(rest) > 0; n = n*3 + 1 {
					n := min(n, len(rest))
					_, _ = way[0].Write(rest[:n])
					rest = rest[n:]
				}
				_ = way[0].CloseWrite()
			})
			all.Go(func() {
				if got, err := io.ReadAll(way[1]); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes of %d, %v", len(got), len(data), err)
				}
			})
		}
	}
	all.Wait()
	eventually(t, "all have gone", func() bool { return f.Apps().Count() == 0 })
}

// Clients that do not read keep nobody else waiting. At a fault they get a reset.
func TestBulkBlocked(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	var full []net.Conn
	for range 10 {
		client := mustDial(t, "tcp", f.proxy(0))
		server := b.mustTake(t)
		go func() { _, _ = io.Copy(server, endless{}) }()
		full = append(full, client)
	}
	eventually(t, "nothing moves any more", func() bool {
		before := f.stats.bytesToClients.Load()
		<-time.After(20 * time.Millisecond)
		return before > 0 && f.stats.bytesToClients.Load() == before
	})
	free := mustDial(t, "tcp", f.proxy(0)).(*net.TCPConn)
	server := b.mustTake(t)
	go func() { mustWriteAll(server, 1<<20) }()
	if n, err := io.Copy(io.Discard, free); n != 1<<20 || err != nil {
		t.Errorf("the one that reads got %d bytes, %v", n, err)
	}
	_ = free.Close()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	for _, client := range full {
		if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client that had not read: %v, want a reset", err)
		}
	}
	eventually(t, "all have gone", func() bool { return f.Apps().Count() == 0 })
}

// endless is a source of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// mustWriteAll writes n bytes and ends.
func mustWriteAll(conn *net.TCPConn, n int) {
	_, _ = conn.Write(make([]byte, n))
	_ = conn.Close()
}

// BenchmarkBulk is a stream to one client.
func BenchmarkBulk(b *testing.B) {
	back := mustBackend(b)
	f := mustPassthrough(b, nil, back.at())
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		client := mustDial(b, "tcp", f.proxy(0))
		go mustWriteAll(back.mustTake(b), size)
		if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{client}, make([]byte, 64<<10)); n != size || err != nil {
			b.Fatalf("read %d bytes, %v", n, err)
		}
		_ = client.Close()
	}
}
