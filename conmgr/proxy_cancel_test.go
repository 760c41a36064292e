// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// cancelOf is the cancel request for a session's pid and secret.
func cancelOf(key string) []byte { return framed(packet(cancelCode, key)) }

// A cancel request reaches the very instance of its session, in the way that the
// session came, and the client waits until the instance has closed.
func TestProxyCancel(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	secret := "pid1" + strings.Repeat("s", 256) // protocol 3.2
	for _, key := range []string{"pid1key1", secret} {
		for _, mode := range []SSLMode{SSLDisable, SSLPrefer} {
			b, other := mustBackend(t), mustBackend(t)
			f := mustProxy(t, func(o *ServerOptions) { o.ProxySSLMode = mode }, b.at())
			take := func() net.Conn { return b.mustTake(t) }
			if mode == SSLPrefer {
				take = func() net.Conn { return a.mustOffer(t, b) }
			}
			session, backend := f.mustMeet(t, take, key)
			f.picture.set(instance(2, other.at(), wire.AttributePrimary)) // a session of now would go there
			client := f.mustAsk(t, cancelOf(key))
			server := take()
			mustRead(t, server, cancelOf(key))
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				_, _ = client.Read(make([]byte, 1))
			}()
			select {
			case <-closed:
				t.Error("the client was let go before the instance had closed")
			case <-time.After(50 * time.Millisecond):
			}
			_ = server.Close()
			<-closed
			if n := f.stats.cancelsPassed.Load(); n != 1 {
				t.Errorf("%d cancel requests passed, want 1", n)
			}
			_ = session.Close()
			_ = backend.Close()
			eventually(t, "the session has gone", func() bool { return f.Apps().Count() == 0 })
			if got := mustEnd(t, f.mustAsk(t, cancelOf(key))); len(got) > 0 {
				t.Errorf("a forgotten key is answered with %q", got)
			}
			if len(b.accepted)+len(other.accepted) > 0 {
				t.Error("a forgotten key was passed on")
			}
		}
	}
}

// Two instances told the same pid and key: both get the request. Another key with
// the same pid is nobody's.
func TestProxyCancelTwins(t *testing.T) {
	b := mustBackend(t)
	f := mustProxy(t, clearText, b.at())
	take := func() net.Conn { return b.mustTake(t) }
	f.mustMeet(t, take, "pid1key1")
	second := mustBackend(t)
	f.picture.set(instance(2, second.at(), wire.AttributePrimary))
	f.mustMeet(t, func() net.Conn { return second.mustTake(t) }, "pid1key1")
	if got := mustEnd(t, f.mustAsk(t, cancelOf("pid1key2"))); len(got) > 0 {
		t.Errorf("an unknown key is answered with %q", got)
	}
	client := f.mustAsk(t, cancelOf("pid1key1"))
	for _, in := range []*backend{b, second} {
		server := in.mustTake(t)
		mustRead(t, server, cancelOf("pid1key1"))
		_ = server.Close()
	}
	if got := mustEnd(t, client); len(got) > 0 {
		t.Errorf("the answer is %q, want none", got)
	}
	if passed, all := f.stats.cancelsPassed.Load(), f.stats.cancels.Load(); passed != 2 || all != 2 {
		t.Errorf("%d passed of %d requests, want 2 of 2", passed, all)
	}
}

// A session over TLS has its key shown to nobody in clear text, and an instance
// that does not answer holds a cancel request no longer than a connect.
func TestProxyCancelBounded(t *testing.T) {
	a := mustAuthority(t, []string{"db1"})
	b := mustBackend(t)
	f := mustProxy(t, func(o *ServerOptions) { o.ConnectTimeout = 300 * time.Millisecond }, b.at())
	f.mustMeet(t, func() net.Conn { return a.mustOffer(t, b) }, "pid1key1")
	client := f.mustAsk(t, cancelOf("pid1key1"))
	conn := b.mustTake(t)
	mustRead(t, conn, framed(packet(sslCode, "")))
	mustWrite(t, conn, []byte{'N'})
	if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
		t.Errorf("the instance read %q, %v in clear text", got, err)
	}
	mustEnd(t, client)
	client = f.mustAsk(t, cancelOf("pid1key1"))
	server := a.mustOffer(t, b)
	mustRead(t, server, cancelOf("pid1key1"))
	mustEnd(t, client) // although server stays open
	if n := f.stats.cancelsPassed.Load(); n != 0 {
		t.Errorf("%d cancel requests passed, want 0", n)
	}
	eventually(t, "only the session is left", func() bool { return f.Apps().Count() == 1 })
}
