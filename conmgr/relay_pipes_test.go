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

// lentPipes is how many pipes are lent and free.
func (f *fixture) lentPipes() (lent, free int) {
	f.pipes.mu.Lock()
	defer f.pipes.mu.Unlock()
	return f.pipes.lent, len(f.pipes.free)
}

// madePipes is how many pipes there are.
func (f *fixture) madePipes() int {
	lent, free := f.lentPipes()
	return lent + free
}

// borrowAll leaves none.
func (f *fixture) borrowAll() (all []*pipe) {
	for {
		p, ok := f.pipes.borrow()
		if !ok {
			return all
		}
		all = append(all, p)
	}
}

// Bulk data passes through pipes, more of it at once than there are, whole and in
// order, mixed with small pieces; then all pipes are back, and none of them has
// anything in it.
func TestSplice(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	var all sync.WaitGroup
	for range mostPipes + 2 {
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
	lent, free := f.lentPipes()
	if lent != 0 || free == 0 || free > mostPipes {
		t.Errorf("%d pipes lent, %d free, want none and some", lent, free)
	}
	for _, p := range f.pipes.free {
		if n, err := syscall.Read(p.r, make([]byte, 1)); err != syscall.EAGAIN {
			t.Errorf("a free pipe has %d bytes, %v", n, err)
		}
	}
}

// Clients that do not read hold pipes, and nobody else waits for that. At a fault
// they get a reset, and pipes with bytes in them are not used again.
func TestSpliceBlocked(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	var full []net.Conn
	for range mostPipes + 2 {
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
	lent, _ := f.lentPipes()
	if lent == 0 {
		t.Error("no pipe is lent")
	}
	mine := f.borrowAll() // which of the others have one is a matter of luck
	free := mustDial(t, "tcp", f.proxy(0)).(*net.TCPConn)
	server := b.mustTake(t)
	go func() { mustWriteAll(server, 1<<20) }()
	if n, err := io.Copy(io.Discard, free); n != 1<<20 || err != nil {
		t.Errorf("the one that reads got %d bytes, %v", n, err)
	}
	_ = free.Close()
	for _, p := range mine {
		f.pipes.giveBack(p)
	}
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	for _, client := range full {
		if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client that had not read: %v, want a reset", err)
		}
	}
	eventually(t, "all have gone", func() bool { return f.Apps().Count() == 0 })
	if now, free := f.lentPipes(); now != 0 || free > mostPipes-lent {
		t.Errorf("%d pipes lent, %d free, want none, and only those that were empty", now, free)
	}
}

// endless is a source of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// mustWriteAll writes n bytes and ends.
func mustWriteAll(conn *net.TCPConn, n int) {
	_, _ = conn.Write(make([]byte, n))
	_ = conn.Close()
}

// BenchmarkBulk shows what pipes are worth.
func BenchmarkBulk(b *testing.B) {
	for name, copied := range map[string]bool{"copied": true, "spliced": false} {
		b.Run(name, func(b *testing.B) {
			back := mustBackend(b)
			f := mustPassthrough(b, nil, back.at())
			f.pipes.closed = copied
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
		})
	}
}
