// SPDX-License-Identifier: Apache-2.0

package key

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// model is what a Window has to be, without its limits.
type model struct {
	highest uint64
	seen    map[uint64]bool
}

func (m *model) accept(seq uint64) bool {
	if seq == 0 || m.seen[seq] || m.highest >= WindowSize && seq <= m.highest-WindowSize {
		return false
	}
	m.seen[seq] = true
	m.highest = max(m.highest, seq)
	return true
}

func checkWindow(t *testing.T, next func(highest uint64) uint64, n int) {
	t.Helper()
	var w Window
	m := model{seen: map[uint64]bool{}}
	for range n {
		seq, before := next(m.highest), w
		if isNew := w.Check(seq); w != before {
			t.Fatalf("Check(%d) = %v changes the window", seq, isNew)
		}
		if got, want := w.Accept(seq), m.accept(seq); got != want {
			t.Fatalf("Accept(%d) with highest %d = %v, want %v", seq, before.highest, got, want)
		}
		if w.Highest() != m.highest {
			t.Fatalf("highest %d, want %d", w.Highest(), m.highest)
		}
	}
}

func TestWindowLikeItsModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		near := func(highest uint64) uint64 { return max(highest, 300) - 300 + random.Uint64N(320) }
		checkWindow(t, near, 20000)
		far := func(highest uint64) uint64 { return highest - 140 + random.Uint64N(150+1<<random.Uint64N(20)) }
		checkWindow(t, far, 20000)
		high := func(uint64) uint64 { return math.MaxUint64 - random.Uint64N(300) }
		checkWindow(t, high, 2000)
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	c := NewCookies([32]byte{7})
	remote, nonce := netip.MustParseAddrPort("192.0.2.1:5000"), wire.ID{1, 2, 3}
	at := func(d time.Duration) mono.Instant { return mono.Instant(d) }
	for _, made := range []time.Duration{1, 10 * time.Second, 12345 * time.Second, 2569 * time.Second, 100000 * time.Hour} {
		cookie := c.Make(remote, nonce, at(made))
		end := made.Truncate(cookieBucket) + 2*cookieBucket
		for _, tt := range []struct {
			name string
			when time.Duration
			want bool
		}{
			{"at once", made, true}, {"10 s later", made + cookieBucket, true}, {"last instant", end - 1, true},
			{"too old", end, false}, {"much too old", end + 256*cookieBucket, false}, {"much older, same byte", made + 256*cookieBucket, false},
			{"from the future", max(made-2*cookieBucket, 0), made < cookieBucket},
		} {
			if got := c.Check(cookie, remote, nonce, at(tt.when)); got != tt.want {
				t.Errorf("made at %s, %s: %v, want %v", made, tt.name, got, tt.want)
			}
		}
	}
	const now = mono.Instant(5e12)
	good := c.Make(remote, nonce, now)
	for i := range good {
		for bit := range 8 {
			bad := good
			bad[i] ^= 1 << bit
			if c.Check(bad, remote, nonce, now) {
				t.Errorf("taken with bit %d of byte %d changed", bit, i)
			}
		}
	}
	for name, taken := range map[string]bool{
		"another port":    c.Check(good, netip.MustParseAddrPort("192.0.2.1:5001"), nonce, now),
		"another address": c.Check(good, netip.MustParseAddrPort("192.0.2.2:5000"), nonce, now),
		"another nonce":   c.Check(good, remote, wire.ID{1, 2, 4}, now),
		"another process": NewCookies([32]byte{8}).Check(good, remote, nonce, now),
		"no cookie":       c.Check([32]byte{}, remote, nonce, 0),
		"another zone":    c.Check(c.Make(netip.MustParseAddrPort("[fe80::1%a]:5"), nonce, now), netip.MustParseAddrPort("[fe80::1%b]:5"), nonce, now),
		"no address":      c.Check(good, netip.AddrPort{}, nonce, now),
	} {
		if taken {
			t.Errorf("%s: taken", name)
		}
	}
}
