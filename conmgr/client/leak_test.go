// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// leakEnv is how many connections TestLeak makes; see the Makefile.
const leakEnv = "CM_TEST_LEAK"

// Thousands of connections that end in every way leave nothing behind: no session
// of conmgr, no descriptor, no goroutine, no memory that grows with them.
func TestLeak(t *testing.T) {
	total := 500
	if text := os.Getenv(leakEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", leakEnv, err)
		}
		total = n
	}
	p := mustPostgres(t, nil)
	refused := instanceOf(1, p)
	refused.Port = agenttest.FreePort(t)
	f := mustFleet(t, instanceOf(0, p))
	locked := mustPostgres(t, func(p *postgres) { p.password = "x" })
	secret := mustFleet(t, instanceOf(0, locked))
	dead := mustFleet(t, refused)
	ends := []func(int) error{
		func(int) error { return connectAndClose(f, false) },
		func(int) error { return connectAndClose(f, true) },
		func(int) error { return refusal(tryConnect(secret.dsn("password=wrong"), time.Minute)) },
		func(int) error { return refusal(tryConnect(dead.dsn(), time.Minute)) },
		func(int) error { return refusal(tryConnect(f.dsn("target_session_attrs=standby"), time.Minute)) },
		func(i int) error { _ = tryConnect(f.dsn(), time.Duration(i%500)*time.Microsecond); return nil },
	}
	warm := total / 10
	run(t, ends, warm)
	settle := func() (bytes uint64, files int) {
		agenttest.Eventually(t, patience, "no session left", func() bool {
			return f.server.Apps().Count()+secret.server.Apps().Count()+dead.server.Apps().Count() == 0 && p.count(open) == 0
		})
		for _, s := range []*postgres{p, locked} { // what a test may want to see
			s.note(func() { s.startups, s.passwords = nil, nil })
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return m.HeapAlloc, len(list)
	}
	bytes, files := settle()
	run(t, ends, total-warm)
	more, left := settle()
	grown := (int64(more) - int64(bytes)) / int64(total)
	t.Logf("%d connects: %d descriptors before, %d after; %d bytes of heap before, %d after", total, files, left, bytes, more)
	if left > files+8 || grown > 512 { // a connection has some 20 KB
		t.Errorf("%d descriptors before, %d after; the heap has grown by %d bytes per connection", files, left, grown)
	}
}

// run has the ends happen n times in all, by a few goroutines.
func run(t *testing.T, ends []func(int) error, n int) {
	t.Helper()
	var all sync.WaitGroup
	const workers = 16
	for w := range workers {
		all.Go(func() {
			for i := w; i < n && !t.Failed(); i += workers {
				if err := ends[i%len(ends)](i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// connectAndClose ends a connection by its owner, or like a process that forgets
// to say goodbye.
func connectAndClose(f *fleet, rudely bool) error {
	conn, err := Connect(context.Background(), f.dsn())
	if err != nil {
		return err
	}
	if rudely {
		return conn.PgConn().Conn().Close()
	}
	return conn.Close(context.Background())
}

// tryConnect connects for as long as it may take, and closes.
func tryConnect(dsn string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := Connect(ctx, dsn)
	if err == nil {
		err = conn.Close(context.Background())
	}
	return err
}

// refusal wants a connect that has failed.
func refusal(err error) error {
	if err == nil {
		return errors.New("a connect that must fail did not")
	}
	return nil
}

// All connections of a process are told, and none waits for its owner to close it.
func TestManyFaults(t *testing.T) {
	p := mustPostgres(t, nil)
	f := mustFleet(t, instanceOf(0, p))
	const n = 300
	watches := make([]*Watch, n)
	for i := range n {
		conn, err := Connect(t.Context(), f.dsn())
		if err != nil {
			t.Fatal(err)
		}
		watches[i] = WatchOf(conn.PgConn())
	}
	f.lose(0, "timeout")
	for _, w := range watches {
		<-w.Done()
		if w.fault() == nil {
			t.Fatal(w.Err())
		}
	}
	agenttest.Eventually(t, patience, "all closed, though nobody closes them", func() bool { return p.count(open) == 0 })
}
