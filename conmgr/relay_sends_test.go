// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mustStill is a loop that does what the test says.
func mustStill(t testing.TB) *loopRig {
	t.Helper()
	r := mustRig(t)
	if r.sends.context == 0 {
		t.Fatal("the kernel gave no context of io_submit")
	}
	t.Cleanup(r.close)
	return r
}

// mustTake lets the application say something, and the loop take it.
func (r *loopRig) mustTake(t testing.TB, x *relayed, message string) {
	t.Helper()
	mustWrite(t, x.client, []byte(message))
	fds := []unix.PollFd{{Fd: int32(x.fd[towardsClient]), Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(fds, -1); n == 1 && err == nil {
			break
		}
	}
	x.take(r.relayLoop, towardsClient, unix.EPOLLIN)
}

// What several say in a turn is sent at its end, with one system call; until then
// nobody else gets at the pairs.
func TestSendsTogether(t *testing.T) {
	r := mustStill(t)
	var all []*relayed
	for range 3 {
		all = append(all, r.mustRelay(t, nil))
	}
	for round := range 2 {
		for _, x := range all {
			r.mustTake(t, x, "question")
			if x.mu.TryLock() {
				x.mu.Unlock()
				t.Fatal("a pair can be ended while the loop is to send its bytes")
			}
		}
		if got := r.sends.n; got != 3 {
			t.Fatalf("%d messages gathered, want 3", got)
		}
		done := r.sends.submit()
		if done != 3 {
			t.Errorf("the kernel took %d of 3 messages together", done)
		}
		r.sends.alone(done)
		r.sends.release()
		for _, x := range all {
			mustRead(t, x.instance, []byte("question"))
		}
		if got, want := r.bytes[towardsInstance].Load(), int64(24*(round+1)); got != want {
			t.Errorf("%d bytes counted, want %d", got, want)
		}
	}
	for _, x := range all {
		if !x.mu.TryLock() {
			t.Fatal("a pair is locked after its bytes were sent")
		}
		x.mu.Unlock()
	}
}

// A pair says two things in a turn: the first one is sent before the second is read.
func TestSendsKeepOrder(t *testing.T) {
	r := mustStill(t)
	x, other := r.mustRelay(t, nil), r.mustRelay(t, nil)
	r.mustTake(t, other, "other")
	r.mustTake(t, x, "first")
	r.mustTake(t, x, "second")
	if r.sends.n != 1 {
		t.Errorf("%d messages gathered, want the second one alone", r.sends.n)
	}
	r.sends.flush()
	mustRead(t, x.instance, []byte("firstsecond"))
	mustRead(t, other.instance, []byte("other"))
}

// More pairs than fit are sent in parts.
func TestSendsMoreThanFit(t *testing.T) {
	r := mustStill(t)
	var all []*relayed
	most := 0
	for range 2*maxSends + 1 {
		x := r.mustRelay(t, nil)
		r.mustTake(t, x, "question")
		all = append(all, x)
		most = max(most, r.sends.n)
	}
	r.sends.flush()
	if most != maxSends-1 {
		t.Errorf("up to %d messages gathered, want %d: both lanes of a pair may say something", most, maxSends-1)
	}
	for _, x := range all {
		mustRead(t, x.instance, []byte("question"))
	}
}

// Who takes only a part, or nothing, gets the rest when he does take it; the others
// do not wait for him.
func TestSendsHold(t *testing.T) {
	r := mustStill(t)
	full, other := r.mustRelay(t, nil), r.mustRelay(t, nil)
	junk := make([]byte, 64<<10)
	var before int64
	for {
		n, err := quickSend(full.fd[towardsInstance], junk, 0)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		before += int64(n)
	}
	r.mustTake(t, full, "late")
	r.mustTake(t, other, "question")
	r.sends.flush()
	mustRead(t, other.instance, []byte("question"))
	f := &full.lanes[towardsInstance]
	if !f.blocked || string(f.held) != "late" {
		t.Fatalf("blocked %v, held %q, want true and %q", f.blocked, f.held, "late")
	}
	var rest bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.CopyN(&rest, full.instance, before+4) })
	eventually(t, "the rest is taken", func() bool {
		full.take(r.relayLoop, towardsInstance, unix.EPOLLOUT)
		r.sends.flush()
		return !f.holds()
	})
	reading.Wait()
	if !bytes.HasSuffix(rest.Bytes(), []byte("late")) {
		t.Error("the rest did not come last")
	}
}

// A message that cannot be sent breaks its own pair, not before the kernel has it, and
// no other one.
func TestSendsBreak(t *testing.T) {
	r := mustStill(t)
	x, other := r.mustRelay(t, nil), r.mustRelay(t, nil)
	r.mustTake(t, x, "question")
	r.mustTake(t, other, "question")
	reset(x.instance)
	eventually(t, "the reset has come", func() bool {
		info, err := unix.GetsockoptTCPInfo(x.fd[towardsInstance], unix.IPPROTO_TCP, unix.TCP_INFO)
		const closed = 7 // TCP_CLOSE, net/tcp_states.h
		return err == nil && info.State == closed
	})
	if x.take(r.relayLoop, towardsInstance, unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) {
		t.Fatal("the pair goes on, though bytes are missing")
	}
	mustRead(t, other.instance, []byte("question"))
	if _, err := io.Copy(io.Discard, x.client); err == nil {
		t.Error("the client read an end, want a reset")
	}
	<-x.done
}

// Without io_submit each message is sent by itself.
func TestSendsWithoutContext(t *testing.T) {
	r := mustStill(t)
	r.sends.close()
	x, other := r.mustRelay(t, nil), r.mustRelay(t, nil)
	for _, x := range []*relayed{x, other} {
		r.mustTake(t, x, "question")
		mustRead(t, x.instance, []byte("question"))
	}
	if r.sends.n != 0 {
		t.Errorf("%d messages gathered, want none", r.sends.n)
	}
}

// What the kernel does not take together is sent by itself.
func TestSendsRefused(t *testing.T) {
	r := mustStill(t)
	x, other := r.mustRelay(t, nil), r.mustRelay(t, nil)
	r.mustTake(t, x, "question")
	r.mustTake(t, other, "question")
	context := r.sends.context
	r.sends.context++ // no such context
	r.sends.flush()
	r.sends.context = context
	for _, conn := range []*net.TCPConn{x.instance, other.instance} {
		mustRead(t, conn, []byte("question"))
	}
}

// A filter that lets messages be submitted, but not what became of them be seen, is
// noticed before there are any.
func TestSendsForbidden(t *testing.T) {
	var context uintptr
	var err error
	var filtered sync.WaitGroup
	filtered.Go(func() {
		runtime.LockOSThread() // the filter is this thread's alone, which ends with it
		if err = forbid(unix.SYS_IO_GETEVENTS); err != nil {
			return
		}
		var l *relayLoop
		if l, err = newRelayLoop([2]*atomic.Int64{}); err == nil {
			context = l.sends.context
			l.close()
		}
	})
	filtered.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if context != 0 {
		t.Error("messages are gathered, want each sent by itself")
	}
}

// forbid lets a system call of this thread fail with EPERM (seccomp(2)).
func forbid(call uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // seccomp_data.nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
