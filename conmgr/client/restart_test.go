// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

// A restart of conmgr is no fault: its connections go on, and are watched again.
func TestRestart(t *testing.T) {
	old, other := mustPostgres(t, nil), mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, old))
	d := &Dialer{comeback: patience}
	conn := mustConnect(t, d, f.dsn())
	f.endForRestart()
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("while conmgr is away: %v", err)
	}
	f.set() // it knows nothing in the beginning
	f.start()
	agenttest.Never(t, 50*time.Millisecond, "closed before conmgr knows anything", conn.IsClosed)
	// The number says nothing, and another one is better now.
	f.set(instanceOf(0, other), func() conmgr.InstanceView { in := instanceOf(7, old); in.Host = "db0"; return in }())
	agenttest.Eventually(t, patience, "bound anew", f.bound(1))
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	f.lose(0, "timeout")
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("the fault of another instance: %v", err)
	}
	f.lose(1, "timeout")
	checkFault(t, func() error { <-WatchOf(conn.PgConn()).Done(); return conn.Ping(t.Context()) }())
}

// What does not come back as it was, is lost: conmgr itself, the instance, its
// role, its address.
func TestRestartElsewhere(t *testing.T) {
	p := mustPostgres(t, nil)
	moved, demoted := instanceOf(0, p), instanceOf(0, p)
	moved.Port++
	demoted.Instance.Attribute = 2
	for name, after := range map[string][]conmgr.InstanceView{
		"does not come back": nil, "knows nothing": {}, "another port": {moved}, "another role": {demoted},
	} {
		t.Run(name, func(t *testing.T) {
			f := mustFleet(t, instanceOf(0, p))
			d := &Dialer{comeback: 100 * time.Millisecond}
			conn := mustConnect(t, d, f.dsn("target_session_attrs=primary"))
			f.endForRestart()
			f.set(after...)
			if after != nil {
				f.start()
			}
			<-WatchOf(conn.PgConn()).Done()
			err := conn.Ping(t.Context())
			if e, ok := errors.AsType[*FaultError](err); !ok || e.Reason != "restart" || !errors.Is(err, ErrConmgrLost) {
				t.Errorf("error is %v, want conmgr lost in a restart", err)
			}
		})
	}
}

// Who closes while conmgr is away waits for nothing and leaves nothing.
func TestCloseInRestart(t *testing.T) {
	f := mustFleet(t, instanceOf(0, mustPostgres(t, nil)))
	d := &Dialer{OnFault: func(e *FaultError) { t.Errorf("told %v", e) }}
	conn := mustConnect(t, d, f.dsn())
	f.endForRestart()
	closeConn(conn)
	f.start()
	agenttest.Never(t, 50*time.Millisecond, "bound again", f.bound(0))
}
