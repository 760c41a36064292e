// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// mustCounter makes a counter of one tap.
func mustCounter(t testing.TB) (*node, *tap, *counter) {
	t.Helper()
	n := mustNode(t)
	p := n.mustTap(t, "t0")
	n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
	w := n.idle(t, Config{}, noBPF)
	if w.counter == nil {
		t.Fatalf("no counter: %+v", w.Missing())
	}
	opened, failed, err := w.counter.keep([]device{w.table.devices[w.table.indexOf("t0")]})
	if err != nil || len(opened) != 1 || len(failed) != 0 {
		t.Fatalf("opened %v, failed %v, %v", opened, failed, err)
	}
	return n, p, w.counter
}

func TestCounter(t *testing.T) {
	_, p, c := mustCounter(t)
	index := c.indexes[0]
	mustLook := func(what string, want int) {
		t.Helper()
		c.note() // as its goroutine does now and then
		if got := c.take(); len(got) != want || want == 1 && (got[0].index != index || got[0].at <= got[0].since) {
			t.Errorf("%s: got %v", what, got)
		}
	}
	mustLook("nothing", 0)
	p.carrier(t, false)
	mustLook("lost", 1)
	mustLook("lost before", 0)
	p.carrier(t, true)
	p.carrier(t, false)
	mustLook("back and lost", 1)
	p.remove()
	mustLook("removed", 1)
	mustLook("removed before", 0)
	if len(c.files) != 0 {
		t.Errorf("kept %v", c.files)
	}
}

func TestCounterLookDoesNotAllocate(t *testing.T) {
	_, _, c := mustCounter(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := make([]int, 0, 1)
	if n := testing.AllocsPerRun(100, func() { changed = c.look(changed[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// It looks by itself while it has devices, and not after that.
func TestCounterBeats(t *testing.T) {
	_, p, c := mustCounter(t)
	for _, on := range []bool{false, true} {
		p.carrier(t, on)
		<-c.news // the test's timeout is the limit
		if got := c.take(); len(got) != 1 {
			t.Errorf("carrier %t: got %v", on, got)
		}
	}
	if _, _, err := c.keep(nil); err != nil || c.beating {
		t.Errorf("without devices: beating %t, %v", c.beating, err)
	}
}

func TestPulse(t *testing.T) {
	p, err := newPulse()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.set(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := p.wait(); err != nil {
			t.Error(err)
		}
	}
	if err := p.set(0); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- p.wait() }()
	select {
	case err := <-ended:
		t.Errorf("beats after set(0): %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("wait goes on after close")
	}
}

// Only devices on the way to a watched peer are looked at, and without one nothing
// ticks.
func TestCounterLooksOnlyAtWatchedWays(t *testing.T) {
	n := mustNode(t)
	n.mustTap(t, "t0")
	n.ip(t, "link set t0 up", "address add 10.1.0.1/24 dev t0")
	w := n.idle(t, Config{}, noBPF)
	turn := func() {
		w.takeRequests()
		for len(w.round.waiting) > 0 {
			w.lookUpSome()
		}
		w.choosePolled()
	}
	turn()
	if w.counter.beating || len(w.counter.files) != 0 {
		t.Errorf("looks at %v although nothing is watched", w.counter.indexes)
	}
	w.Watch(addrOf("127.0.0.1"))
	w.Watch(addrOf("10.1.0.5"))
	turn()
	if !w.counter.beating || len(w.counter.files) != 1 || w.counter.indexes[0] != w.table.indexOf("t0") {
		t.Errorf("looks at %v", w.counter.indexes)
	}
	w.Unwatch(addrOf("10.1.0.5"))
	turn()
	if w.counter.beating || len(w.counter.files) != 0 {
		t.Errorf("looks at %v although only a peer on this host is watched", w.counter.indexes)
	}
}

// The counters of another namespace are worse than none.
func TestCounterOfAnotherNamespace(t *testing.T) {
	l := agenttest.MustLab(t, "a", "b")
	var k *kernel
	err := l.Host("a").Do(func() (err error) {
		k, err = openKernel()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	// The machine's own has other devices, b's differ by nothing but the address.
	if c, err := openClass(sysClassNet, k); !errors.Is(err, errOtherNamespace) {
		t.Errorf("the machine's: %v, %v", c, err)
	}
	err = l.Host("b").Do(func() error {
		c, err := openClass(sysClassNet, k)
		if !errors.Is(err, errOtherNamespace) {
			t.Errorf("b's: %v, %v", c, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = l.Host("a").Do(func() error {
		c, err := openClass(sysClassNet, k)
		if err != nil {
			return err
		}
		return c.close()
	})
	if err != nil {
		t.Errorf("a's own: %v", err)
	}
	if c, err := openClass(t.TempDir()+"/none", k); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v, %v", c, err)
	}
	if c, err := openClass(t.TempDir(), k); !errors.Is(err, errOtherNamespace) {
		t.Errorf("an empty directory: %v, %v", c, err)
	}
}

func BenchmarkCounterLook(b *testing.B) {
	_, _, c := mustCounter(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	b.ReportAllocs()
	changed := make([]int, 0, 1)
	for b.Loop() {
		changed = c.look(changed[:0])
	}
}
