// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// fakeNames is a name server; answers maps a name to addresses or, with a
// leading "!", to an error. Change it only while no look-up runs.
type fakeNames struct {
	answers map[string]string
	asked   atomic.Int32
	hang    bool
}

func (n *fakeNames) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.asked.Add(1)
	if n.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	answer := n.answers[host]
	if text, isError := strings.CutPrefix(answer, "!"); isError {
		return nil, errors.New(text)
	}
	var addrs []netip.Addr
	for f := range strings.FieldsSeq(answer) {
		addrs = append(addrs, netip.MustParseAddr(f))
	}
	return addrs, nil
}

// resolveTest runs a test in a bubble with one resolver.
func resolveTest(t *testing.T, hosts []string, test func(r *Resolver, n *fakeNames, found *[]string, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		n := &fakeNames{answers: map[string]string{}}
		var found []string
		var log bytes.Buffer
		r := NewResolver(ResolverConfig{
			Lookup: n.lookup,
			Found:  func(i int, a netip.Addr) { found = append(found, fmt.Sprint(i, " ", a)) },
			Log:    slog.New(slog.NewTextHandler(&log, nil)),
		}, hosts)
		defer r.Close()
		test(r, n, &found, &log)
	})
}

// picked is what Pick says, as text; "-" for nothing. It waits for the look-up
// that the call began, unless that hangs.
func picked(r *Resolver, now mono.Instant, i int, failed bool) string {
	addr, ok := r.Pick(now, i, failed)
	synctest.Wait()
	if !ok {
		return "-"
	}
	return addr.String()
}

func TestResolverFixedAddresses(t *testing.T) {
	t.Parallel()
	hosts := []string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.9", "localhost"}
	resolveTest(t, hosts, func(r *Resolver, n *fakeNames, _ *[]string, _ *bytes.Buffer) {
		for i, want := range []string{"192.0.2.1", "2001:db8::1", "192.0.2.9", "127.0.0.1"} {
			if got := picked(r, 1, i, false); got != want {
				t.Errorf("%s is %s, want %s", hosts[i], got, want)
			}
		}
		if got := picked(r, 1, 0, true); got != "192.0.2.1" {
			t.Errorf("a single address turned into %s", got)
		}
		if got := picked(r, 1, 3, true); got != "::1" {
			t.Errorf("the other localhost is %s, want ::1", got)
		}
		if n.asked.Load() != 0 {
			t.Error("a numeric address was looked up")
		}
	})
}

func TestResolverRotatesAndRenews(t *testing.T) {
	t.Parallel()
	resolveTest(t, []string{"db1"}, func(r *Resolver, n *fakeNames, found *[]string, log *bytes.Buffer) {
		at := func(ms int) mono.Instant { return fleetAt(1000 + ms) }
		expect := func(ms int, failed bool, want string) {
			t.Helper()
			if got := picked(r, at(ms), 0, failed); got != want {
				t.Errorf("at %d ms got %s, want %s", ms, got, want)
			}
		}
		n.answers["db1"] = "192.0.2.1 2001:db8::1 192.0.2.1 0.0.0.0 ::ffff:192.0.2.1"
		expect(0, false, "-")
		expect(1, false, "192.0.2.1")
		expect(2, true, "2001:db8::1")
		expect(3, true, "192.0.2.1") // twice the same, not dialled twice
		expect(4, true, "2001:db8::1")
		if got := n.asked.Load(); got != 1 {
			t.Errorf("%d look-ups within 5 s, want 1", got)
		}
		// The present address stays while it is among the answers.
		n.answers["db1"] = "192.0.2.7 2001:db8::1"
		expect(5000, false, "2001:db8::1")
		expect(5001, false, "2001:db8::1")
		// A failure keeps what was good.
		n.answers["db1"] = "!no such host"
		expect(10000, false, "2001:db8::1")
		expect(15000, false, "2001:db8::1")
		n.answers["db1"] = ""
		expect(20000, false, "2001:db8::1")
		n.answers["db1"] = "192.0.2.8"
		expect(25000, false, "2001:db8::1")
		expect(25001, false, "192.0.2.8")
		if want := "[0 192.0.2.1 0 192.0.2.8]"; fmt.Sprint(*found) != want {
			t.Errorf("found %v, want %s", *found, want)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "no such host") {
			t.Errorf("want one warning and one line when it was over, got:\n%s", log)
		}
	})
}

func TestResolverHangingNameServer(t *testing.T) {
	t.Parallel()
	resolveTest(t, []string{"db1", "db2"}, func(r *Resolver, n *fakeNames, _ *[]string, log *bytes.Buffer) {
		n.answers["db1"], n.answers["db2"] = "192.0.2.1", "192.0.2.2"
		picked(r, fleetAt(1000), 0, false)
		n.hang = true
		start := time.Now()
		for ms := 10000; ms < 12000; ms += 100 {
			if got := picked(r, fleetAt(ms), 0, false); got != "192.0.2.1" {
				t.Errorf("got %s, want the last good address", got)
			}
		}
		picked(r, fleetAt(16000), 0, false)
		if got := n.asked.Load(); got != 2 {
			t.Errorf("%d look-ups, want no second one beside a hanging one", got)
		}
		if time.Since(start) != 0 {
			t.Errorf("delayed by %v", time.Since(start))
		}
		time.Sleep(5 * time.Second) // the look-up's own limit
		synctest.Wait()
		if !strings.Contains(log.String(), "deadline exceeded") {
			t.Errorf("the look-up did not end: %s", log)
		}
		n.hang = false
		picked(r, fleetAt(20000), 0, false)
		if got := n.asked.Load(); got != 3 {
			t.Errorf("%d look-ups, want a new one after the hanging one", got)
		}
	})
}

func TestResolverClose(t *testing.T) {
	t.Parallel()
	resolveTest(t, []string{"db1"}, func(r *Resolver, n *fakeNames, found *[]string, log *bytes.Buffer) {
		n.hang = true
		picked(r, fleetAt(1000), 0, false)
		start := time.Now()
		r.Close()
		if time.Since(start) != 0 {
			t.Errorf("closing took %v", time.Since(start))
		}
		picked(r, fleetAt(9000), 0, false)
		if n.asked.Load() != 1 || len(*found) != 0 || log.Len() != 0 {
			t.Errorf("after closing: %d look-ups, found %v, log %q", n.asked.Load(), *found, log)
		}
	})
}

func TestResolverBoundsTheAnswer(t *testing.T) {
	t.Parallel()
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	if got := len(dialable(many)); got != maxAddresses {
		t.Errorf("kept %d addresses, want %d", got, maxAddresses)
	}
}
