// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// backend is a listener that stands for an instance.
type backend struct {
	net.Listener
	accepted chan *net.TCPConn
}

func mustBackend(t testing.TB) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{Listener: l, accepted: make(chan *net.TCPConn, 10_000)}
	go b.loop()
	t.Cleanup(func() { _ = l.Close() })
	return b
}

func (b *backend) loop() {
	for {
		conn, err := b.Accept()
		if err != nil {
			return
		}
		b.accepted <- conn.(*net.TCPConn)
	}
}

func (b *backend) at() netip.AddrPort { return b.Addr().(*net.TCPAddr).AddrPort() }

// mustTake returns the next connection that came.
func (b *backend) mustTake(t testing.TB) *net.TCPConn {
	t.Helper()
	select {
	case conn := <-b.accepted:
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	case <-time.After(10 * time.Second):
		t.Fatal("no connection came")
		return nil
	}
}

// mustPassthrough runs a server with one pass-through port to a primary.
func mustPassthrough(t testing.TB, change func(*ServerOptions), at ...netip.AddrPort) *fixture {
	t.Helper()
	f := mustServe(t, func(o *ServerOptions) {
		o.ProxyListen = []ProxyPort{{0, Primary}}
		if change != nil {
			change(o)
		}
	})
	var list []InstanceView
	for i, a := range at {
		list = append(list, instance(i+1, a, wire.AttributePrimary))
	}
	f.picture.set(list...)
	return f
}

// Bytes go both ways unchanged, also many of them, and the end of one
// direction leaves the other alone.
func TestPassthroughHalfClose(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	client := mustDial(t, "tcp", f.proxy(0)).(*net.TCPConn)
	server := b.mustTake(t)
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = client.Write(data)
		_ = client.CloseWrite()
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("server read %d bytes of %d, %v", len(got), len(data), err)
	}
	go func() {
		_, _ = server.Write(data)
		_ = server.Close()
	}()
	if got, err = io.ReadAll(client); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("client read %d bytes of %d, %v", len(got), len(data), err)
	}
	eventually(t, "the application has gone", func() bool { return f.Apps().Count() == 0 })
	if n := f.stats.bytesToClients.Load(); n != int64(len(data)) {
		t.Errorf("counted %d bytes", n)
	}
}

// SHOW APPLICATIONS names the instance that a proxied application hangs on.
func TestPassthroughShown(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	client := mustDial(t, "tcp", f.proxy(0))
	b.mustTake(t)
	eventually(t, "connected", func() bool { return f.passthrough.connected.Load() == 1 && f.apps.list()[0].state == "connected" })
	list := f.apps.list()
	r := applicationRow(&list[0], f.picture.View())
	at := client.LocalAddr().(*net.TCPAddr)
	want := row{int64(1), "passthrough", at.IP.String(), int64(at.Port), nil, nil, "primary", int64(1), "db1", rfc3339(list[0].connected), "connected"}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// An idle application costs two descriptors, before and after bytes moved.
func TestPassthroughDescriptors(t *testing.T) {
	const n = 50
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	connect := func() {
		client := mustDial(t, "tcp", f.proxy(0))
		server := b.mustTake(t)
		mustWrite(t, client, make([]byte, 100_000))
		if _, err := io.ReadFull(server, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	connect() // all that is there once; bytes move when the loop alone has the sockets
	before := descriptors(t)
	for range n {
		connect()
	}
	// The client's and the server's ends live in this process too.
	if each := float64(descriptors(t)-before)/n - 2; each != 2 {
		t.Errorf("%v descriptors per application, want 2", each)
	}
}

// A reset on one side is a reset on the other.
func TestPassthroughReset(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	client := mustDial(t, "tcp", f.proxy(0))
	server := b.mustTake(t)
	eventually(t, "connected", func() bool { return f.passthrough.connected.Load() == 1 })
	reset(server)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read: %v, want a reset", err)
	}
	eventually(t, "the application has gone", func() bool { return f.Apps().Count() == 0 })
}

// At a fault both sides end: with FIN when nothing is unsent, with RST else.
func TestPassthroughFault(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at(), b.at())
	idle := mustDial(t, "tcp", f.proxy(0))
	idleServer := b.mustTake(t)
	full := mustDial(t, "tcp", f.proxy(0))
	fullServer := b.mustTake(t)
	eventually(t, "both are bound", func() bool { return f.passthrough.connected.Load() == 2 })
	_ = fullServer.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for {
		if _, err := fullServer.Write(make([]byte, 1<<20)); err != nil { // the client does not read
			break
		}
	}
	if told := f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: clock.Now()}); told != 2 {
		t.Errorf("told %d, want 2", told)
	}
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("idle client: %v, want EOF", err)
	}
	if _, err := idleServer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("its instance: %v, want EOF", err)
	}
	if _, err := io.Copy(io.Discard, full); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client with unsent bytes: %v, want a reset", err)
	}
	eventually(t, "both have gone", func() bool { return f.Apps().Count() == 0 })
}

// A candidate that refuses costs nothing: the next one is taken.
func TestPassthroughNextCandidate(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, netip.MustParseAddrPort("127.0.0.1:1"), b.at())
	mustDial(t, "tcp", f.proxy(0))
	b.mustTake(t)
	eventually(t, "bound to the second", func() bool { return f.Apps().Bound(1) == 1 && f.Apps().Bound(0) == 0 })
}

// mustSilent listens without ever accepting, its backlog full, so that a
// connect to it hangs.
func mustSilent(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 2 { // one more than the backlog holds
		if conn, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond); err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	return at
}

// A connect that hangs is reported after a second, given up at once when the
// instance faults, and the application lands on the new picture's instance.
func TestPassthroughFaultDuringConnect(t *testing.T) {
	b := mustBackend(t)
	slow := make(chan int, 1)
	f := mustPassthrough(t, func(o *ServerOptions) { o.SlowConnect = func(i int) { slow <- i } }, mustSilent(t))
	client := mustDial(t, "tcp", f.proxy(0))
	if got := <-slow; got != 0 {
		t.Errorf("slow instance %d, want 0", got)
	}
	v := f.picture.View()
	lost, next := v.Instances[0], instance(2, b.at(), wire.AttributePrimary)
	lost.Monitoring = Faulted
	at := f.picture.set(lost, next)
	start := time.Now()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: at})
	server := b.mustTake(t)
	if took := time.Since(start); took > time.Second {
		t.Errorf("moved after %s", took)
	}
	mustWrite(t, client, []byte("x"))
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// Without an instance an unmodified client hears why, with each sslmode that
// allows plain text.
func TestPassthroughNoInstance(t *testing.T) {
	f := mustPassthrough(t, nil, netip.MustParseAddrPort("127.0.0.1:1"))
	where := strings.Replace(f.proxy(0), "127.0.0.1:", "host=127.0.0.1 user=app dbname=db port=", 1)
	for _, tt := range []struct{ more, want string }{
		{" sslmode=disable", "no instance took the connection: instance 1 db1:1"},
		{" sslmode=prefer", "connection refused"},
	} {
		_, err := pgx.Connect(t.Context(), where+tt.more)
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || e.Code != "57P03" || !strings.Contains(e.Message, tt.want) {
			t.Errorf("%s: error is %v, want 57P03 %s", tt.more, err, tt.want)
		}
	}
	f.picture.set()
	_, err := pgx.Connect(t.Context(), where)
	if err == nil || !strings.Contains(err.Error(), "no instance is primary") {
		t.Errorf("nothing routable: %v", err)
	}
	if got := psql(t, "localhost", f.ProxyPorts()[0].Port, "db", "-c", "SELECT 1"); !strings.Contains(got, "no instance is primary") {
		t.Errorf("psql printed %q", got)
	}
}

// Only loopback peers and those of proxy_allow are served.
func TestPassthroughStrangers(t *testing.T) {
	f := mustPassthrough(t, func(o *ServerOptions) {
		o.ProxyAllow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("fe80::/10")}
	})
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "192.0.2.7": true, "fe80::1%lo": true,
		"192.0.3.1": false, "2001:db8::1": false, "0.0.0.0": false,
	} {
		if got := f.allowed(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s allowed: %v, want %v", addr, got, want)
		}
	}
}

// Nothing is left of proxied applications.
func TestPassthroughNoLeak(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	warm := mustDial(t, "tcp", f.proxy(0))
	warmServer := b.mustTake(t)
	reset(warm)
	_ = warmServer.Close()
	eventually(t, "the first has gone", func() bool { return f.Apps().Count() == 0 })
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	for i := range 40 {
		client := mustDial(t, "tcp", f.proxy(0)).(*net.TCPConn)
		server := b.mustTake(t)
		switch i % 4 {
		case 0:
			reset(client)
		case 1:
			reset(server)
		case 2:
			_ = client.CloseWrite()
		case 3:
			mustWrite(t, client, make([]byte, 1000))
		}
		_ = server.Close()
		_ = client.Close()
	}
	eventually(t, "all have gone", func() bool {
		return f.Apps().Count() == 0 && runtime.NumGoroutine() <= goroutines && descriptors(t) <= fds
	})
}

// Fast shutdown ends proxied applications on both sides, and those that are
// still connecting hear of it.
func TestPassthroughShutdown(t *testing.T) {
	b := mustBackend(t)
	f := mustPassthrough(t, nil, b.at())
	client := mustDial(t, "tcp", f.proxy(0))
	server := b.mustTake(t)
	eventually(t, "connected", func() bool { return f.passthrough.connected.Load() == 1 })
	f.picture.set(instance(1, mustSilent(t), wire.AttributePrimary))
	waiting := mustDial(t, "tcp", f.proxy(0))
	mustWrite(t, waiting, framed(packet(protocol30, "user\x00app\x00\x00")))
	eventually(t, "the second one connects", func() bool { return f.Apps().Bound(0) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.Shutdown(ctx, ShutdownFast); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"client": client, "instance": server} {
		if got := mustEnd(t, conn); len(got) > 0 {
			t.Errorf("%s read %q", name, got)
		}
	}
	if got := mustEnd(t, waiting); !bytes.Contains(got, []byte("57P03")) {
		t.Errorf("the waiting one was told %q", got)
	}
}
