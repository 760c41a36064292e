// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
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

// The first packet passes as it is, whatever its version; what the client sent
// behind it follows; then all bytes pass both ways, and each end of a direction
// leaves the other alone.
func TestProxyPasses(t *testing.T) {
	b := mustBackend(t)
	f := mustProxy(t, clearText, b.at())
	first := framed(packet(3<<16|9999, "b\x001\x00user\x00app\x00database\x00db\x00b\x002\x00_pq_.x\x00y\x00\x00"))
	client := f.mustAsk(t, append(bytes.Clone(first), "behind"...))
	server := b.mustTake(t)
	mustRead(t, server, append(first, "behind"...))
	negotiate := said('v', "\x00\x03\x00\x02\x00\x00\x00\x01_pq_.x\x00")
	mustWrite(t, server, negotiate)
	mustRead(t, client, negotiate)
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = client.Write(data)
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the instance read %d bytes of %d, %v", len(got), len(data), err)
	}
	go func() {
		_, _ = server.Write(data)
		_ = server.Close()
	}()
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the client read %d bytes of %d, %v", len(got), len(data), err)
	}
	eventually(t, "the application has gone", func() bool { return f.Apps().Count() == 0 })
	if n := f.stats.bytesToClients.Load(); n != int64(len(data)+len(negotiate)) {
		t.Errorf("%d bytes to clients counted", n)
	}
	if n := f.stats.bytesToInstances.Load(); n != int64(len(data)+len(first)+len("behind")) {
		t.Errorf("%d bytes to instances counted", n)
	}
}

// The target comes from the options, else from the configuration, and SHOW
// APPLICATIONS tells.
func TestProxyTarget(t *testing.T) {
	primary, standby := mustBackend(t), mustBackend(t)
	f := mustProxy(t, clearText)
	f.picture.set(instance(1, primary.at(), wire.AttributePrimary), instance(2, standby.at(), wire.AttributeStandby))
	f.mustAsk(t, appPacket)
	mustRead(t, primary.mustTake(t), appPacket)
	client := f.mustAsk(t, framed(packet(protocol30, "user\x00app\x00database\x00db\x00options\x00-c geqo=off -c conmgr.target_session_attrs=standby\x00\x00")))
	mustRead(t, standby.mustTake(t), framed(packet(protocol30, "user\x00app\x00database\x00db\x00options\x00-c geqo=off\x00\x00")))
	eventually(t, "both are connected", func() bool { return f.proxying.connected.Load() == 2 && f.apps.list()[1].state == "connected" })
	list := f.apps.list()
	at := client.LocalAddr().(*net.TCPAddr)
	want := row{int64(2), "proxy", at.IP.String(), int64(at.Port), nil, nil, "standby", int64(2), "db2", rfc3339(list[1].connected), "connected"}
	if diff := cmp.Diff(want, applicationRow(&list[1], f.picture.View())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	bad := f.mustAsk(t, framed(packet(protocol30, "user\x00app\x00database\x00db\x00options\x00--conmgr.target_session_attrs=x\x00\x00")))
	if e := mustRefused(t, bad); e.code != "22023" || e.severity != "FATAL" {
		t.Errorf("an unknown target: %v", e)
	}
}

// An idle proxied session costs two descriptors, before and after bytes moved.
func TestProxyDescriptors(t *testing.T) {
	const n = 50
	b := mustBackend(t)
	f := mustProxy(t, clearText, b.at())
	take := func() net.Conn { return b.mustTake(t) }
	f.mustMeet(t, take, "pid0key0")
	before, used := descriptors(t), f.used()
	for range n {
		client, server := f.mustMeet(t, take, "pid0key0")
		mustWrite(t, client, make([]byte, 100_000))
		if _, err := io.ReadFull(server, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	// The client's and the instance's ends live in this process too.
	if each := float64(descriptors(t)-before)/n - 2; each != 2 {
		t.Errorf("%v descriptors per application, want 2", each)
	}
	if got := f.used() - used; got != 2*n {
		t.Errorf("%d descriptors are accounted for %d applications", got, n)
	}
}

// At the limits the connection is closed without a message, and counted.
func TestProxyLimits(t *testing.T) {
	b := mustBackend(t)
	f := mustProxy(t, func(o *ServerOptions) {
		clearText(o)
		o.Descriptors = 3
	}, b.at())
	first := f.mustAsk(t, appPacket)
	b.mustTake(t)
	if got := mustEnd(t, f.mustAsk(t, appPacket)); len(got) > 0 {
		t.Errorf("answer %q, want none", got)
	}
	if n := f.stats.refusedLimit.Load(); n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
	eventually(t, "its place is free", func() bool { return f.used() == 2 })
	mustStart(t, mustDial(t, "tcp", f.address())) // one is left for a console
	_ = first.Close()
}

// A reset on one side is a reset on the other.
func TestProxyReset(t *testing.T) {
	b := mustBackend(t)
	f := mustProxy(t, clearText, b.at())
	client, server := f.mustMeet(t, func() net.Conn { return b.mustTake(t) }, "pid0key0")
	reset(server)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client read: %v, want a reset", err)
	}
	eventually(t, "the application has gone", func() bool { return f.Apps().Count() == 0 })
}

// At a fault both sides end: with FIN when nothing is unsent, with RST else; in
// clear text and over TLS.
func TestProxyFault(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	for _, mode := range []SSLMode{SSLDisable, SSLRequire} {
		t.Run(mode.String(), func(t *testing.T) {
			b := mustBackend(t)
			f := mustProxy(t, func(o *ServerOptions) { o.ProxySSLMode = mode }, b.at())
			take := func() net.Conn { return b.mustTake(t) }
			if mode == SSLRequire {
				take = func() net.Conn { return a.mustOffer(t, b) }
			}
			idle, idleServer := f.mustMeet(t, take, "pid1key1")
			full, fullServer := f.mustMeet(t, take, "pid2key2")
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
		})
	}
}

// An instance that is lost while its TLS is negotiated is given up at once, and
// the application lands on the new picture's instance.
func TestProxyFaultDuringConnect(t *testing.T) {
	stalls, b := mustBackend(t), mustBackend(t)
	slow := make(chan int, 1)
	f := mustProxy(t, func(o *ServerOptions) { o.SlowConnect = func(i int) { slow <- i } }, stalls.at())
	client := f.mustAsk(t, appPacket)
	mustRead(t, stalls.mustTake(t), framed(packet(sslCode, ""))) // and no answer
	if got := <-slow; got != 0 {
		t.Errorf("slow instance %d, want 0", got)
	}
	lost, next := f.picture.View().Instances[0], instance(2, b.at(), wire.AttributePrimary)
	lost.Monitoring = Faulted
	at := f.picture.set(lost, next)
	start := time.Now()
	f.Apps().Fault(Fault{Index: 0, Reason: "timeout", At: at})
	server := b.mustTake(t)
	if took := time.Since(start); took > time.Second {
		t.Errorf("moved after %s", took)
	}
	mustRead(t, server, framed(packet(sslCode, "")))
	mustWrite(t, server, []byte{'N'})
	mustRead(t, server, appPacket)
	mustWrite(t, server, greetings("pid0key0"))
	mustRead(t, client, greetings("pid0key0"))
	if n := f.proxying.slow.Load(); n != 1 {
		t.Errorf("%d slow connects counted, want 1", n)
	}
}

// Without an instance an unmodified client hears the state of each.
func TestProxyNoInstance(t *testing.T) {
	f := mustProxy(t, nil, netip.MustParseAddrPort("127.0.0.1:1"))
	where := fmt.Sprintf("host=127.0.0.1 port=%d user=app dbname=db", f.Port())
	check := func(want string) {
		t.Helper()
		_, err := pgx.Connect(t.Context(), where)
		e, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || e.Code != "57P03" || e.Severity != "FATAL" || !strings.Contains(e.Message, want) {
			t.Errorf("error is %v, want FATAL 57P03 %s", err, want)
		}
		if got := psql(t, "localhost", f.Port(), "db", "-c", "SELECT 1"); !strings.Contains(got, want) {
			t.Errorf("psql printed %q, want %s", got, want)
		}
	}
	check("no instance took the connection: instance 1 db1:1: dial tcp 127.0.0.1:1: connect: connection refused")
	lost := f.picture.View().Instances[0]
	lost.Monitoring = Faulted
	f.picture.set(lost)
	check("no instance is primary: 1 db1:1 is faulted primary")
	if n := f.stats.startupFailed.Load(); n != 0 {
		t.Errorf("%d failed startups counted, want none", n)
	}
	eventually(t, "failures are counted", func() bool { return f.proxying.failed.Load() >= 4 })
}

// Fast shutdown ends proxied sessions on both sides; those that are still
// connecting, or are not known to be proxied ones yet, hear of it.
func TestProxyShutdown(t *testing.T) {
	b := mustBackend(t)
	f := mustProxy(t, clearText, b.at())
	client, server := f.mustMeet(t, func() net.Conn { return b.mustTake(t) }, "pid0key0")
	f.picture.set(instance(1, mustSilent(t), wire.AttributePrimary))
	waiting := f.mustAsk(t, appPacket)
	eventually(t, "the second one connects", func() bool { return f.Apps().Bound(0) == 2 })
	early := f.mustAsk(t, appPacket[:6])
	eventually(t, "the third one is there", func() bool { return f.Apps().Count() == 3 })
	if err := f.Shutdown(t.Context(), ShutdownFast); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"client": client, "instance": server} {
		if got := mustEnd(t, conn); len(got) > 0 {
			t.Errorf("%s read %q", name, got)
		}
	}
	if e := mustRefused(t, waiting); e.code != "57P03" {
		t.Errorf("the waiting one was told %v", e)
	}
	if e := mustRefused(t, early); e.code != "57P01" {
		t.Errorf("the early one was told %v", e)
	}
	if e := mustRefused(t, f.mustAsk(t, appPacket)); e.code != "57P03" {
		t.Errorf("a late one was told %v", e)
	}
}

// Thousands of sessions leave nothing behind: no goroutine, descriptor, place or
// key, in clear text and over TLS.
func TestProxyNoLeak(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	for mode, n := range map[SSLMode]int{SSLDisable: 2000, SSLRequire: 100} {
		t.Run(mode.String(), func(t *testing.T) {
			b := mustBackend(t)
			f := mustProxy(t, func(o *ServerOptions) { o.ProxySSLMode = mode }, b.at())
			once := func(i int) {
				client, err := net.Dial("tcp", f.address())
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				mustWrite(t, inTime(client), appPacket)
				server := inTime(<-b.accepted)
				defer func() { _ = server.Close() }()
				if mode == SSLRequire {
					mustRead(t, server, framed(packet(sslCode, "")))
					mustWrite(t, server, []byte{'S'})
					server = tls.Server(server, a.server)
				}
				mustRead(t, server, appPacket)
				if i%5 == 0 {
					reset(client)
					return
				}
				mustWrite(t, server, greetings(fmt.Sprintf("pid%dkey%d", i%7, i)))
				switch i % 5 {
				case 1:
					reset(client)
				case 2:
					_ = server.Close()
				case 3:
					_ = client.(*net.TCPConn).CloseWrite()
				}
			}
			for i := range 5 {
				once(i)
			}
			eventually(t, "the first have gone", func() bool { return f.Apps().Count() == 0 })
			goroutines, fds := runtime.NumGoroutine(), descriptors(t)
			for i := range n {
				once(i)
			}
			eventually(t, "all have gone", func() bool {
				return f.Apps().Count() == 0 && runtime.NumGoroutine() <= goroutines && descriptors(t) <= fds
			})
			if len(f.cancels.routes) > 0 || f.used() != 0 {
				t.Errorf("%d keys and %d descriptors are left", len(f.cancels.routes), f.used())
			}
		})
	}
}
