// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The owner is blocked, the client's host is dead: both wake at once.
func TestBlockedOwnersWake(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	reader := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	writer := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	c := mustDial(t, db)
	agenttest.MustFault(t, client.Cut)

	woken := make(chan error, 2)
	go readOne(reader, woken)
	go writeMuch(writer, woken)
	f := peer(client.Addr4, 5432)
	f.Info = true
	full := func() bool {
		for _, s := range mustFind(t, c, f) {
			if s.Remote == plain(writer.client.LocalAddr()) {
				return s.SendQueue > 16<<10 && s.Info.Unacked > 0 && s.Info.Retransmits > 0 && s.Timer.Kind == TimerRetransmit
			}
		}
		return false
	}
	agenttest.Eventually(t, limit, "a full socket that sends again", full)
	select {
	case err := <-woken:
		t.Fatalf("woke before the kill: %v", err)
	default:
	}
	begin := time.Now()
	mustDestroy(t, c, mustFind(t, c, f), Destroyed)
	for range 2 {
		if err := <-woken; !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("woke with %v, want ECONNABORTED", err)
		}
	}
	t.Logf("both awake %v after the verdict", time.Since(begin).Round(time.Microsecond))
}

func readOne(p pair, woken chan<- error) {
	_, err := p.server.Read(make([]byte, 1))
	woken <- err
}

func writeMuch(p pair, woken chan<- error) {
	_, err := p.server.Write(make([]byte, 64<<20))
	woken <- err
}

// What the last look goes by: a dead host falls silent on all its sockets, one
// whose program hangs still acknowledges.
func TestInfoTellsADeadHostFromAHangingProgram(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "hung", "db")
	client, hung, db := lab.Host("client"), lab.Host("hung"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	dead := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	alive := pg.mustConnect(t, hung, from(hung.Addr4, 0), at(db.Addr4, 5432))
	dead.mustTalk(t)
	alive.mustTalk(t)
	c := mustDial(t, db)
	agenttest.MustFault(t, client.Cut)
	cut := time.Now()
	info := func(h *agenttest.Host) *Info {
		f := peer(h.Addr4, 5432)
		f.Info = true
		found := mustFind(t, c, f)
		if len(found) != 1 || found[0].Info == nil {
			t.Fatalf("%s: found %+v", h.Name, found)
		}
		return found[0].Info
	}
	// The server speaks to both; nobody reads on the other side.
	send := func() bool {
		for _, p := range []pair{dead, alive} {
			if _, err := p.server.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		return info(client).LastReceived() > 500*time.Millisecond
	}
	agenttest.Eventually(t, limit, "half a second of silence", send)
	d, a := info(client), info(hung)
	if most := time.Since(cut) + 50*time.Millisecond; d.LastReceived() > most+time.Second {
		t.Errorf("silent for %v, cut for %v", d.LastReceived(), most)
	}
	if d.Unacked == 0 || d.RTO <= 0 || d.RTT <= 0 {
		t.Errorf("dead host: %+v", d)
	}
	if a.LastReceived() > 250*time.Millisecond || a.LastDataReceived < 400*time.Millisecond || a.BytesReceived != 1 {
		t.Errorf("hanging program: %+v", a)
	}
}

// A thousand of one client end in one run, and nobody else.
func TestManyEndInOneRun(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	pg := mustListen(t, db, "tcp", "[::]:5432")
	connect := func(h *agenttest.Host, n int) (pairs []pair) {
		for i := range n {
			local, remote := h.Addr4, db.Addr4
			if i%2 == 1 {
				local, remote = h.Addr6, db.Addr6
			}
			pairs = append(pairs, pg.mustConnect(t, h, from(local, 0), at(remote, 5432)))
		}
		return pairs
	}
	die, live := connect(client, 1000), connect(other, 200)
	c := mustDial(t, db)
	f := peer(client.Addr4, 5432)
	f.Peers = append(f.Peers, peer(client.Addr6).Peers...)
	found := mustFind(t, c, f)
	if len(found) != len(die) {
		t.Errorf("found %d, want %d", len(found), len(die))
	}
	mustDestroy(t, c, found, Destroyed)
	if left := mustFind(t, c, f); len(left) != 0 {
		t.Errorf("%d left", len(left))
	}
	for _, p := range die {
		if state := tcpState(t, p.server); state != Close {
			t.Errorf("%v: %v", p.server.RemoteAddr(), state)
		}
	}
	for _, p := range live {
		p.mustTalk(t)
	}
}
