// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"errors"
	"io/fs"
	"testing"

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
	if opened, failed := w.counter.keep([]device{w.table.devices[w.table.indexOf("t0")]}); len(opened) != 1 || len(failed) != 0 {
		t.Fatalf("opened %v, failed %v", opened, failed)
	}
	return n, p, w.counter
}

func TestCounter(t *testing.T) {
	_, p, c := mustCounter(t)
	index := c.indexes[0]
	mustLook := func(what string, want int) {
		t.Helper()
		if got := c.look(nil); len(got) != want || want == 1 && got[0] != index {
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
	changed := make([]int, 0, 1)
	if n := testing.AllocsPerRun(100, func() { changed = c.look(changed[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
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
	if w.polling.ticker != nil || len(w.counter.files) != 0 {
		t.Errorf("looks at %v although nothing is watched", w.counter.indexes)
	}
	w.Watch(addrOf("127.0.0.1"))
	w.Watch(addrOf("10.1.0.5"))
	turn()
	if w.polling.ticker == nil || len(w.counter.files) != 1 || w.counter.indexes[0] != w.table.indexOf("t0") {
		t.Errorf("looks at %v", w.counter.indexes)
	}
	w.Unwatch(addrOf("10.1.0.5"))
	turn()
	if w.polling.ticker != nil || len(w.counter.files) != 0 {
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
	b.ReportAllocs()
	changed := make([]int, 0, 1)
	for b.Loop() {
		changed = c.look(changed[:0])
	}
}
