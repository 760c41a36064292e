// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"net"
	"net/netip"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// orphans is a client that is cut off, and connections of it whose owner on the
// server has gone without its last bytes being acknowledged: what a killed backend
// leaves behind.
type orphans struct {
	conn   *Conn
	client netip.Addr
	found  []Socket // as they were before
}

func mustOrphans(t *testing.T, n int) *orphans {
	t.Helper()
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	o := &orphans{conn: mustDial(t, db), client: client.Addr4}
	var owned []net.Conn
	for range n {
		p := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
		delete(pg.accepted, plain(p.client.LocalAddr()))
		owned = append(owned, p.server)
	}
	agenttest.MustFault(t, client.Cut)
	o.found = mustFind(t, o.conn, peer(client.Addr4, 5432))
	for _, c := range owned {
		if _, err := c.Write([]byte("unacknowledged")); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	agenttest.Eventually(t, limit, "orphans", func() bool { return len(o.left(t)) == n })
	return o
}

// left are the orphans that the kernel shows.
func (o *orphans) left(t *testing.T) (left []Socket) {
	t.Helper()
	f := peer(o.client, 5432)
	f.States = AllStates
	for _, s := range mustFind(t, o.conn, f) {
		if s.State == FinWait1 && s.Inode == 0 {
			left = append(left, s)
		}
	}
	return left
}

// An orphan is not found among what can be killed, is refused when it is given all
// the same, and keeps the timer that ends it.
func TestOrphansAreLeftToTheKernel(t *testing.T) {
	o := mustOrphans(t, 3)
	if found := mustFind(t, o.conn, peer(o.client, 5432)); len(found) != 0 {
		t.Errorf("found %v among what can be killed", found)
	}
	mustDestroy(t, o.conn, o.left(t), Refused)
	left := o.left(t)
	for _, s := range left {
		if s.Timer.Kind != TimerRetransmit {
			t.Errorf("%v waits for %v: expected that it sends again, and ends", s, s.Timer.Kind)
		}
	}
	if len(left) != 3 {
		t.Errorf("%d orphans are left, want 3", len(left))
	}
}

// One that became an orphan after it was found is destroyed: no request can tell. On
// a kernel with the fix of tcp_abort it is gone then, and not an orphan for ever.
func TestOrphanSinceFound(t *testing.T) {
	o := mustOrphans(t, 3)
	mustDestroy(t, o.conn, o.found, Destroyed)
	if left := o.left(t); len(left) != 0 {
		t.Errorf("left: %v, the first one waits for %v", left, left[0].Timer.Kind)
	}
}
