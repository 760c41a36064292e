// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
	"github.com/pgconmgr/pgconmgr/conmgr"
)

func TestMain(m *testing.M) { os.Exit(agenttest.RunWithoutLeaks(m, os.Stderr)) }

// patience is for a machine in trouble.
const patience = 20 * time.Second

// fleet is the console of a real conmgr, with instances that a test describes.
type fleet struct {
	t      testing.TB
	view   atomic.Pointer[conmgr.View]
	server *conmgr.Server
	port   uint16
	cancel context.CancelFunc
	ended  chan struct{}
}

// View makes a fleet a conmgr.Source.
func (f *fleet) View() *conmgr.View { return f.view.Load() }

// mustFleet serves instances until the test ends.
func mustFleet(t testing.TB, instances ...conmgr.InstanceView) *fleet {
	t.Helper()
	f := &fleet{t: t}
	f.set(instances...)
	f.start()
	t.Cleanup(f.stop)
	return f
}

// instanceOf describes a scripted server. Its host is a name that no resolver
// knows.
func instanceOf(number int, p *postgres) conmgr.InstanceView {
	attribute := wire.AttributePrimary
	if p.standby {
		attribute = wire.AttributeStandby
	}
	return conmgr.InstanceView{
		Number: number, Host: fmt.Sprintf("db%d", number), Addr: netip.MustParseAddr("127.0.0.1"),
		Port: p.port(), Monitoring: conmgr.Monitored, Heartbeat: wire.StateUp, Reason: wire.ReasonArmed,
		Instance: wire.Instance{Attribute: attribute, Status: wire.StatusUp, ReadOnly: p.readOnly},
	}
}

// set publishes what conmgr knows from now on.
func (f *fleet) set(instances ...conmgr.InstanceView) {
	f.view.Store(&conmgr.View{At: clock.Now(), Instances: instances})
}

// start serves on the port it had, or on any.
func (f *fleet) start() {
	f.t.Helper()
	s, err := conmgr.NewServer(conmgr.ServerOptions{
		Source: f, Route: conmgr.NewRouter(conmgr.Policy{LoadBalance: conmgr.BalanceFirst}).Route,
		ListenAddresses: []string{"127.0.0.1"}, Port: f.port, Descriptors: 10_000,
		CloseOnRoleChange: true, CloseOnStalePrimary: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.server, f.port, f.cancel, f.ended = s, s.Port(), cancel, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = s.Run(ctx)
	}(f.ended)
}

// stop ends conmgr: its applications are told "stop".
func (f *fleet) stop() {
	f.cancel()
	<-f.ended
}

// endForRestart ends conmgr as cm_ctl restart does.
func (f *fleet) endForRestart() {
	f.t.Helper()
	if err := f.server.Shutdown(context.Background(), conmgr.ShutdownRestart); err != nil {
		f.t.Fatal(err)
	}
	f.stop()
}

// lose lets an instance fault.
func (f *fleet) lose(index int, reason string, only ...conmgr.Target) {
	f.t.Helper()
	at := clock.Now()
	if only == nil {
		instances := append([]conmgr.InstanceView(nil), f.view.Load().Instances...)
		instances[index].Monitoring = conmgr.Faulted
		f.set(instances...)
	}
	f.server.Apps().Fault(conmgr.Fault{Index: index, Reason: reason, Silence: 1500 * time.Millisecond, At: at, Only: only})
}

// bound is how many applications conmgr has bound to an instance.
func (f *fleet) bound(index int) func() bool {
	return func() bool { return f.server.Apps().Bound(index) > 0 }
}

// dsn is a connection string with this conmgr for the simple protocol, which is
// all that the scripted servers know.
func (f *fleet) dsn(more ...string) string {
	return fmt.Sprintf("host=localhost port=%d %s ", f.port, plain) + strings.Join(more, " ")
}

const plain = "user=app dbname=app default_query_exec_mode=simple_protocol sslmode=disable"

// mustConnect connects and closes at the end of the test.
func mustConnect(t testing.TB, d *Dialer, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := d.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = conn.Close(ctx)
	<-conn.PgConn().CleanupDone()
}
