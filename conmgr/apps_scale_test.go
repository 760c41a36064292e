// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// applications returns how many to fault at once: CONMGR_TEST_APPLICATIONS, or
// a number that is quick and fits into usual limits.
func applications(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("CONMGR_TEST_APPLICATIONS"))
	if err != nil {
		n = 400
	}
	// Both ends of every socket live in this process.
	limit, err := RaiseDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	if need := uint64(n/2*2 + n/2*4 + 200); need > limit {
		t.Skipf("%d applications need %d descriptors, the limit is %d", n, need, limit)
	}
	return n
}

// Every application is told in one pass, half of them console sessions, half
// proxied ones. The clients share the machine, so the time is printed, not
// judged.
func TestFaultOfMany(t *testing.T) {
	n := applications(t)
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	var clients []net.Conn
	target, err := (&pgproto3.Query{String: "TARGET primary"}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range n / 2 {
		conn := mustDial(t, "tcp", f.address())
		front := mustStart(t, conn)
		mustWrite(t, conn, target)
		awaitReady(t, front)
		clients = append(clients, conn, mustDial(t, "tcp", f.proxy(0)))
		b.mustTake(t)
	}
	eventually(t, "all are bound", func() bool {
		return f.passthrough.connected.Load() == int64(n/2) && f.Apps().Bound(0) == n/2*2
	})
	if got := f.picture.View().Instances[0].Instance.Attribute; got != wire.AttributePrimary {
		t.Fatalf("the instance is %s", got)
	}

	for _, conn := range clients {
		_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	}
	var seen sync.WaitGroup
	last := make(chan time.Time, len(clients))
	for _, conn := range clients {
		seen.Go(func() { awaitEnd(conn, last) })
	}
	start := time.Now()
	told := f.Apps().Fault(Fault{Index: 0, Reason: "timeout", Silence: time.Second, At: clock.Now()})
	pass := time.Since(start)
	seen.Wait()
	close(last)
	var latest time.Duration
	for at := range last {
		latest = max(latest, at.Sub(start))
	}
	if told != len(clients) {
		t.Errorf("told %d of %d", told, len(clients))
	}
	t.Logf("%d applications: Fault returned after %s, the last client saw it after %s", told, pass, latest)
	for _, conn := range clients {
		_ = conn.Close()
	}
	eventually(t, "all have gone", func() bool { return f.Apps().Count() == 0 })
}

// awaitEnd reads until the first bytes or the end of the connection.
func awaitEnd(conn net.Conn, last chan<- time.Time) {
	var buf [1024]byte
	_, _ = conn.Read(buf[:])
	last <- time.Now()
}

// Sessions that bind while their instance faults again and again: none stays
// bound to it after the last fault.
func TestFaultsWhileBinding(t *testing.T) {
	f := mustServe(t, nil)
	good := f.picture.View().Instances
	bad := append([]InstanceView(nil), good...)
	bad[0].Monitoring = Faulted
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() { bindAgain(f.address(), stop) })
	}
	fault := func() {
		f.picture.set(bad...)
		f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: f.picture.View().At})
	}
	for range 60 {
		eventually(t, "somebody is bound", func() bool { return f.Apps().Bound(0) > 0 })
		fault()
		f.picture.set(good...)
	}
	fault()
	if n := f.Apps().Bound(0); n != 0 {
		t.Errorf("%d are bound after the fault", n)
	}
	close(stop)
	clients.Wait()
	if n := f.Apps().Bound(0); n != 0 {
		t.Errorf("%d bound themselves after the fault", n)
	}
}

// bindAgain connects and asks for the primary, over and over.
func bindAgain(address string, stop <-chan struct{}) {
	target, _ := (&pgproto3.Query{String: "TARGET primary"}).Encode(nil)
	start := framed(packet(protocol30, "user\x00app\x00database\x00conmgr\x00\x00"))
	var buf [4096]byte
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		_, err = conn.Write(append(append([]byte{}, start...), target...))
		for err == nil {
			select {
			case <-stop:
				_ = conn.Close()
				return
			default:
			}
			if _, err = conn.Read(buf[:]); err == nil {
				_, err = conn.Write(target)
			}
		}
		_ = conn.Close()
	}
}

// counted is a holder that only counts.
type counted struct {
	told, released *sync.WaitGroup
	wait           <-chan struct{} // before it is released; nil for nothing
}

func (c *counted) tell([]byte) { c.told.Done() }
func (c *counted) insist()     {}

func (c *counted) release() {
	if c.wait != nil {
		<-c.wait
	}
	c.released.Done()
}

// The applications of an instance are told while those of another one, lost before,
// are still being released.
func TestFaultDuringRelease(t *testing.T) {
	f := mustServe(t, nil)
	var told, released sync.WaitGroup
	second := make(chan struct{})
	bind := func(instance, n int, wait <-chan struct{}) {
		for range n {
			told.Add(1)
			released.Add(1)
			m := &app{kind: KindConsole}
			f.apps.add(m)
			t.Cleanup(func() { f.apps.remove(m) })
			if err := f.apps.bind(m, instance, Any, clock.Now(), &counted{&told, &released, wait}); err != nil {
				t.Fatal(err)
			}
		}
	}
	bind(0, 3*releaseBatch, second)
	bind(1, 2, nil)
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()})
	f.Apps().Fault(Fault{Index: 1, Reason: "timeout", At: clock.Now()})
	told.Wait()
	close(second)
	released.Wait()
}
