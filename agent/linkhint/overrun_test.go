// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

// flood is more changes than the ring buffer of bpf/linkhint.bpf.c has room for.
const flood = 1500

// pool is a tap that floods, and one on the way to a peer.
type pool struct {
	*node
	many, one *tap
}

func mustPool(t *testing.T) *pool {
	t.Helper()
	if !vm.Inside() {
		t.Skip("this kernel does not do it: see TestInVirtualMachine")
	}
	n := mustNode(t)
	p := &pool{node: n, many: n.mustTap(t, "t0"), one: n.mustTap(t, "t1")}
	n.ip(t, "link set t0 up", "link set t1 up", "address add 10.1.0.1/24 dev t1")
	return p
}

// overrun fills the buffer that nobody reads; there is no room for the loss then.
func (p *pool) overrun(t *testing.T) {
	t.Helper()
	for i := range flood {
		p.many.carrier(t, i%2 == 1)
	}
	p.one.carrier(t, false)
}

// What did not fit into the ring buffer is found by reading all devices again, though
// rtnetlink has told nothing of it, and the source goes on.
func TestBPFOverrun(t *testing.T) {
	p := mustPool(t)
	for _, source := range []Source{Fentry, Kprobe} {
		t.Run(source.String(), func(t *testing.T) {
			p.recorder = new(recorder)
			w := p.idle(t, Config{BPF: true, Without: betterThan(source)}, openBPF)
			needSource(t, w, source)
			w.Watch(addrOf("10.1.0.5"))
			w.takeRequests()
			w.lookUpSome()
			p.overrun(t)
			p.drive(t, CarrierLost, func(e carrierEvent) { t.Errorf("%+v was not dropped", e) })
			var dropped uint64
			if err := w.hints.(*bpfSource).dropped.Get(&dropped); err != nil || dropped == 0 {
				t.Errorf("%d dropped, %v", dropped, err)
			}
			if got := p.last(addrOf("10.1.0.5")); got.State != Lost {
				t.Errorf("path %+v", got)
			}
			p.one.carrier(t, true)
			p.drive(t, CarrierBack, func(carrierEvent) {})
		})
	}
}

// drive does the Watcher's part, without rtnetlink, until the event of t1; hinted is
// called for the hints of it.
func (p *pool) drive(t *testing.T, kind Kind, hinted func(carrierEvent)) {
	t.Helper()
	end := time.After(3 * limit) // it looks at each of the flood
	for p.countOf("t1", kind) == 0 {
		select {
		case e, ok := <-p.w.hints.events():
			if e.name == "t1" {
				hinted(e)
			}
			p.w.takeHint(e, ok)
		case <-p.w.hints.overrun():
			p.w.readAll()
		case <-p.w.doubtTime.C:
			p.w.lookAgain()
		case <-end:
			t.Fatalf("t1: no %v", kind)
		}
	}
}

// A Watcher that stands still meanwhile knows the state as it is when it goes on.
func TestBPFOverrunWhileRunning(t *testing.T) {
	p := mustPool(t)
	gate, stands := make(chan struct{}), make(chan struct{})
	var first sync.Once
	p.hold = func() { first.Do(func() { close(stands); <-gate }) }
	p.watch(t, Config{BPF: true})
	needSource(t, p, Fentry)
	peer := p.mustWatch(t, "10.1.0.5")[0]
	p.many.carrier(t, false)
	<-stands
	p.many.carrier(t, true)
	p.overrun(t)
	p.many.carrier(t, false)
	close(gate)
	p.mustPath(t, peer, Lost)
	p.mustBe(t, "t0", CarrierLost)
	p.many.carrier(t, true)
	p.one.carrier(t, true)
	p.mustBe(t, "t0", CarrierBack)
	p.mustPath(t, peer, Good)
}

// mustBe wants the last that is told of a device to be this.
func (n *node) mustBe(t *testing.T, name string, want Kind) {
	t.Helper()
	agenttest.Eventually(t, limit, name+" at last: "+want.String(), func() bool { return n.lastOf(name) == want })
}
