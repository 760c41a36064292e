// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// loopRig is a loop, whose end the test waits for.
type loopRig struct {
	*relayLoop
	bytes [2]atomic.Int64
}

func mustLoop(t testing.TB) *loopRig {
	t.Helper()
	r := mustRig(t)
	r.start(t)
	return r
}

// mustRig makes a loop that does not run yet.
func mustRig(t testing.TB) *loopRig {
	t.Helper()
	r := new(loopRig)
	var err error
	r.relayLoop, err = newRelayLoop([2]*atomic.Int64{&r.bytes[0], &r.bytes[1]})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start lets it run, which closes it, until the test has ended.
func (r *loopRig) start(t testing.TB) {
	var running sync.WaitGroup
	running.Go(r.run)
	t.Cleanup(func() {
		r.end()
		running.Wait()
	})
}

// relayed is a pair, and the application and the instance at its ends.
type relayed struct {
	*pair
	client, instance *net.TCPConn
}

func (r *loopRig) mustRelay(t testing.TB, g *greeting) *relayed {
	t.Helper()
	client, in := mustPair(t)
	instance, out := mustPair(t)
	p, err := newPair(r.relayLoop, in, out, g)
	if err != nil {
		t.Fatal(err)
	}
	x := &relayed{p, client, instance}
	t.Cleanup(func() {
		p.kill()
		_ = client.Close()
		_ = instance.Close()
	})
	return x
}

// used is how many slots have a pair.
func (r *loopRig) used() (n int) {
	r.relayLoop.mu.Lock()
	defer r.relayLoop.mu.Unlock()
	for _, p := range r.pairs {
		if p != nil {
			n++
		}
	}
	return n
}

// Each direction ends by itself, behind all of its bytes; then the pair has ended,
// and its slot is another's.
func TestPairPassesEnds(t *testing.T) {
	r := mustLoop(t)
	for range 3 {
		x := r.mustRelay(t, nil)
		mustWrite(t, x.client, []byte("question"))
		_ = x.client.CloseWrite()
		mustBe(t, x.instance, "question")
		mustWrite(t, x.instance, []byte("answer"))
		_ = x.instance.Close()
		mustBe(t, x.client, "answer")
		<-x.done
		if r.used() != 0 || len(r.pairs) != 1 {
			t.Errorf("%d slots used of %d, want none of one", r.used(), len(r.pairs))
		}
	}
	if up, down := r.bytes[towardsInstance].Load(), r.bytes[towardsClient].Load(); up != 24 || down != 18 {
		t.Errorf("%d bytes up, %d down, want 24 and 18", up, down)
	}
}

// mustBe reads to the end.
func mustBe(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(conn); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

// A broken end breaks the other one.
func TestPairPassesReset(t *testing.T) {
	r := mustLoop(t)
	x := r.mustRelay(t, nil)
	reset(x.instance)
	if _, err := io.Copy(io.Discard, x.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client read %v, want a reset", err)
	}
	<-x.done
}

// Who passes much leaves others their turn: small questions are answered while
// streams without an end run through the same loop.
func TestLoopTakesTurns(t *testing.T) {
	r := mustLoop(t)
	for range 3 {
		x := r.mustRelay(t, nil)
		go func() { _, _ = io.Copy(x.instance, endless{}) }()
		go func() { _, _ = io.Copy(io.Discard, x.client) }()
	}
	small := r.mustRelay(t, nil)
	go func() { _, _ = io.Copy(small.instance, small.instance) }() // an echo
	for range 200 {
		mustWrite(t, small.client, []byte("ping"))
		mustRead(t, small.client, []byte("ping"))
	}
	eventually(t, "streams have run", func() bool { return r.bytes[towardsClient].Load() > 8<<20 })
}

// What a client does not take is held, and comes whole and in order when it does; of
// a greeting, too, which may be longer than what was read.
func TestLaneHolds(t *testing.T) {
	r := mustLoop(t)
	data := make([]byte, 24<<20)
	_, _ = rand.Read(data)
	key := []byte("K\x00\x00\x00\x0c\x00\x00\x00\x01abcd")
	learned := make(chan []byte, 1)
	x := r.mustRelay(t, &greeting{learn: func(k []byte) { learned <- k }})
	mustWrite(t, x.instance, key[:6])
	go func() {
		_, _ = x.instance.Write(append(key[6:len(key):len(key)], data...))
		_ = x.instance.CloseWrite()
	}()
	eventually(t, "the client takes no more", func() bool {
		x.pair.mu.Lock()
		defer x.pair.mu.Unlock()
		return x.lanes[towardsClient].blocked && x.lanes[towardsClient].holds()
	})
	got, err := io.ReadAll(x.client)
	if err != nil || !bytes.Equal(got, append(key, data...)) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(key)+len(data))
	}
	if k := <-learned; string(k) != "\x00\x00\x00\x01abcd" {
		t.Errorf("learned %q", k)
	}
}

// However a pair is ended, by several at once and while bytes move, it ends once: no
// slot stays, and no socket of another is touched.
func TestPairEndsOnce(t *testing.T) {
	r := mustLoop(t)
	other := r.mustRelay(t, nil)
	for round := range 60 {
		x := r.mustRelay(t, nil)
		go func() { _, _ = io.Copy(x.instance, endless{}) }()
		go func() { _, _ = io.Copy(x.client, endless{}) }()
		var all sync.WaitGroup
		for i, end := range []func(){func() { x.tell(nil) }, x.release, x.kill, func() { _ = x.client.Close() }, x.release} {
			if round>>i&1 == 1 || i == 4 {
				all.Go(end)
			}
		}
		all.Wait()
		<-x.done
	}
	eventually(t, "all but the other one have ended", func() bool { return r.used() == 1 })
	mustWrite(t, other.client, []byte("question"))
	mustRead(t, other.instance, []byte("question"))
	_ = other.instance.Close()
	mustBe(t, other.client, "")
}

// A fault is told with FIN, or with RST where bytes are missing or not taken, and
// nothing passes from then on, though the sockets stay until they are released.
func TestPairTells(t *testing.T) {
	r := mustLoop(t)
	x := r.mustRelay(t, nil)
	x.tell(nil)
	mustBe(t, x.client, "")
	mustWrite(t, x.client, []byte("too late"))
	mustWrite(t, x.instance, []byte("too late"))
	full := r.mustRelay(t, nil)
	go func() { _, _ = io.Copy(full.instance, endless{}) }()
	eventually(t, "the client takes no more", func() bool {
		full.pair.mu.Lock()
		defer full.pair.mu.Unlock()
		return full.lanes[towardsClient].blocked
	})
	full.tell(nil)
	slow := r.mustRelay(t, nil)
	eventually(t, "its kernel takes no more, ours does", func() bool {
		mustWrite(t, slow.instance, make([]byte, 16<<10))
		slow.pair.mu.Lock()
		defer slow.pair.mu.Unlock()
		n, err := quickUnsent(slow.fd[towardsClient])
		return err == nil && n > 256<<10 && !slow.lanes[towardsClient].holds()
	})
	slow.tell(nil)
	slow.insist()
	if n, err := io.Copy(io.Discard, slow.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that reads late: %d bytes, %v, want a reset", n, err)
	}
	slow.release()
	if _, err := io.Copy(io.Discard, full.client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a client that had not read: %v, want a reset", err)
	}
	if r.used() != 2 {
		t.Errorf("%d slots used before the release, want 2", r.used())
	}
	if up := r.bytes[towardsInstance].Load(); up != 0 {
		t.Errorf("%d bytes passed up after the fault", up)
	}
	x.release()
	full.release()
	<-x.done
	<-full.done
}

// A loop that cannot take the sockets leaves them as they are.
func TestLoopRefuses(t *testing.T) {
	r, err := newRelayLoop([2]*atomic.Int64{})
	if err != nil {
		t.Fatal(err)
	}
	epoll := r.epoll
	r.epoll = -1
	client, in := mustPair(t)
	instance, out := mustPair(t)
	if _, err := newPair(r, in, out, nil); !errors.Is(err, unix.EBADF) {
		t.Errorf("error %v, want EBADF", err)
	}
	if len(r.free) != 1 || r.pairs[0] != nil {
		t.Errorf("slots %v, free %v: want one, free", r.pairs, r.free)
	}
	mustWrite(t, in, []byte("a"))
	mustRead(t, client, []byte("a"))
	mustWrite(t, out, []byte("b"))
	mustRead(t, instance, []byte("b"))
	r.epoll = epoll
	r.close()
}

// BenchmarkMessage is a small message there and back.
func BenchmarkMessage(b *testing.B) {
	x := mustLoop(b).mustRelay(b, nil)
	go func() { _, _ = io.Copy(struct{ io.Writer }{x.instance}, struct{ io.Reader }{x.instance}) }()
	message := make([]byte, 64)
	for b.Loop() {
		mustWrite(b, x.client, message)
		mustRead(b, x.client, message)
	}
}
