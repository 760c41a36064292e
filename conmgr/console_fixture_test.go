// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// picture is a Source whose view a test sets.
type picture struct{ v atomic.Pointer[View] }

func (p *picture) View() *View { return p.v.Load() }

// set publishes instances, stamped now.
func (p *picture) set(list ...InstanceView) mono.Instant {
	v := &View{At: clock.Now(), Instances: list}
	p.v.Store(v)
	return v.At
}

// byAttribute routes primary, standby and any.
func byAttribute(v *View, t Target) ([]int, error) {
	var out []int
	var states []string
	for i := range v.Instances {
		n := &v.Instances[i]
		states = append(states, fmt.Sprintf("%s is %s %s", n.Name(), n.Monitoring, n.Instance.Attribute))
		primary := n.Instance.Attribute == wire.AttributePrimary
		fits := t == Any || t == Primary && primary || t == Standby && !primary
		if n.Monitoring == Monitored && fits {
			out = append(out, i)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("no instance is %s: %s", t, strings.Join(states, "; "))
	}
	return out, nil
}

// instance makes a monitored instance at an address.
func instance(number int, at netip.AddrPort, attribute wire.Attribute) InstanceView {
	return InstanceView{
		Number: number, Host: fmt.Sprintf("db%d", number), HostAddr: at.Addr().String(),
		Addr: at.Addr(), Port: at.Port(), Monitoring: Monitored, Heartbeat: wire.StateUp,
		Reason:   wire.ReasonArmed,
		Instance: wire.Instance{Attribute: attribute, Status: wire.StatusUp},
	}
}

// fixture is a running server.
type fixture struct {
	*Server
	picture *picture
	socket  string
	cancel  context.CancelFunc
	ended   chan struct{}
}

// mustServe runs a server with a primary and a standby at documentation
// addresses until the test ends.
func mustServe(t testing.TB, change func(*ServerOptions)) *fixture {
	t.Helper()
	f := &fixture{picture: &picture{}, ended: make(chan struct{})}
	f.socket = filepath.Join(t.TempDir(), "conmgr.sock")
	f.picture.set(
		instance(1, netip.MustParseAddrPort("192.0.2.1:5432"), wire.AttributePrimary),
		instance(2, netip.MustParseAddrPort("192.0.2.2:5433"), wire.AttributeStandby))
	opts := ServerOptions{
		Source: f.picture, Route: byAttribute, SocketPath: f.socket, Descriptors: 10_000,
		CloseOnRoleChange: true, CloseOnStalePrimary: true,
		Status: func() Status { return Status{State: "ready", PID: 42, Version: "1.2.3", Hints: "counter"} },
	}
	if change != nil {
		change(&opts)
	}
	s, err := NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	f.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go f.run(ctx)
	t.Cleanup(f.stop)
	return f
}

func (f *fixture) run(ctx context.Context) {
	defer close(f.ended)
	_ = f.Run(ctx)
}

func (f *fixture) stop() {
	f.cancel()
	<-f.ended
}

// address is the console's on IPv4 loopback.
func (f *fixture) address() string { return fmt.Sprintf("127.0.0.1:%d", f.Port()) }

// proxy is the address of a pass-through port.
func (f *fixture) proxy(i int) string { return fmt.Sprintf("127.0.0.1:%d", f.ProxyPorts()[i].Port) }

// eventually polls for a fact.
func eventually(t testing.TB, what string, fact func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !fact() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for: %s", what)
		}
		<-tick.C
	}
}
