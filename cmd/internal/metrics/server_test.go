// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// mustServe serves at free ports of localhost until the test ends.
func mustServe(t *testing.T, n int) (at []string) {
	t.Helper()
	o := Options{Program: "test", Version: "1", Families: testMetric, Fill: fill, Log: discard()}
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		at = append(at, fmt.Sprintf("127.0.0.1:%d", port))
		o.Listen = append(o.Listen, conf.Endpoint{Host: "localhost", Port: uint16(port)})
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { Serve(ctx, o) })
	t.Cleanup(func() { stop(); running.Wait() })
	for _, a := range at {
		agenttest.Eventually(t, time.Minute, "served at "+a, func() bool { return scrape(a) == nil })
	}
	return at
}

// scrape gets the metrics over a connection of its own.
func scrape(at string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	r, err := client.Get("http://" + at + "/metrics")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != http.StatusOK || !bytes.Contains(text, []byte("\ntest_things_total 42\n"))) {
		err = fmt.Errorf("%s: %s", r.Status, text)
	}
	return err
}

func mustDial(t *testing.T, at string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func TestServeSeveral(t *testing.T) {
	t.Parallel()
	for _, at := range mustServe(t, 3) {
		if err := scrape(at); err != nil {
			t.Error(err)
		}
	}
}

// Connections that are kept open keep nobody out: the oldest ones go.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	at := mustServe(t, 1)[0]
	var silent []net.Conn
	for range 3 * maxConns {
		silent = append(silent, mustDial(t, at))
	}
	for range 5 {
		if err := scrape(at); err != nil {
			t.Fatal(err)
		}
	}
	gone := 0
	for _, c := range silent[:2*maxConns] {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			gone++
		}
	}
	if gone != 2*maxConns {
		t.Errorf("%d of the %d oldest connections were closed", gone, 2*maxConns)
	}
}

// What is no request, or one that never ends, is given up.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	at := mustServe(t, 1)[0]
	for _, tt := range []struct{ name, send, want string }{
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400 Bad Request"},
		{"huge header", "GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "431 Request Header Fields Too Large"},
		{"body that never comes", "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", "200 OK"},
		{"POST", "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"},
		{"proxy request", "CONNECT db1:5432 HTTP/1.1\r\nHost: db1\r\n\r\n", "4"},
		{"half a request", "GET /metrics HT", ""}, // closed when the time for it is over
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := mustDial(t, at)
			began := time.Now()
			go func() { _, _ = io.WriteString(c, tt.send) }() // it may not be taken to its end
			line, err := bufio.NewReader(c).ReadString('\n')
			if tt.want == "" {
				if took := time.Since(began); took < requestLimit || took > 2*requestLimit {
					t.Errorf("given up after %s, %q, %v", took, line, err)
				}
				return
			}
			if !strings.HasPrefix(line, "HTTP/1.1 "+tt.want) && !strings.HasPrefix(line, "HTTP/1.0 "+tt.want) {
				t.Errorf("%q, %v, want %s", line, err, tt.want)
			}
		})
	}
}

// A port that is taken is told once, and served when it is free.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := taken.Addr().String()
	h, err := Handler(Options{Program: "test", Families: testMetric, Fill: fill})
	if err != nil {
		t.Fatal(err)
	}
	var text lockedBuffer
	s := &server{handler: h, log: slog.New(slog.NewTextHandler(&text, nil)), conns: newConns(2), retry: time.Millisecond}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	running.Go(func() { s.run(ctx, conf.Endpoint{Host: "127.0.0.1", Port: port}) })
	agenttest.Eventually(t, time.Minute, "a line", func() bool { return strings.Contains(text.String(), "address already in use") })
	_ = taken.Close()
	agenttest.Eventually(t, time.Minute, "served", func() bool { return scrape(at) == nil })
	stop()
	running.Wait()
	if n := strings.Count(text.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors in the log: %s", n, text.String())
	}
	if err := scrape(at); err == nil {
		t.Error("still served after the end")
	}
}

type lockedBuffer struct {
	mu   sync.Mutex // guards the following
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
