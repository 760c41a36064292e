// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// number sends the numbers from 0 as datagrams.
func (w *wire) number(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if _, err := w.from.WriteTo([]byte(strconv.Itoa(i)), w.dest); err != nil {
			t.Fatal(err)
		}
	}
}

// meet returns when the ends know each other as neighbours: what waits for that is
// delayed, and dropped where it is much.
func (w *wire) meet(t *testing.T) {
	t.Helper()
	Eventually(t, 20*time.Second, "a first datagram arrives", func() bool {
		w.number(t, 1)
		return len(w.numbers(t, 50*time.Millisecond)) > 0
	})
}

// numbers returns what arrives until nothing comes for a moment.
func (w *wire) numbers(t *testing.T, moment time.Duration) (got []int) {
	t.Helper()
	buf := make([]byte, 16)
	for {
		if err := w.to.SetReadDeadline(time.Now().Add(moment)); err != nil {
			t.Fatal(err)
		}
		n, _, err := w.to.ReadFrom(buf)
		if err != nil {
			return got
		}
		i, err := strconv.Atoi(string(buf[:n]))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i)
	}
}

func TestScrambleReordersAndRepeats(t *testing.T) { onBothDevices(t, scrambleReordersAndRepeats) }

func scrambleReordersAndRepeats(t *testing.T, l *Lab) {
	a, b := l.Host("a"), l.Host("b")
	for _, addr := range []netip.Addr{b.Addr4, b.Addr6} {
		w := mustWire(t, a, b, addr)
		w.meet(t)
		port := netip.MustParseAddrPort(w.dest.String()).Port()
		s, err := a.Scramble(t.Context(), Scramble{Port: port, Late: 30, Twice: 30, Hold: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		const sent = 100
		w.number(t, sent)
		got := w.numbers(t, time.Second)
		held, copied := s.Counts()
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		late, seen := 0, map[int]bool{}
		for i, n := range got {
			seen[n] = true
			if i > 0 && n < got[i-1] {
				late++
			}
		}
		if len(seen) != sent || len(got) != sent+int(copied) {
			t.Errorf("%v: %d datagrams, %d of them different: expected %d and %d copies", addr, len(got), len(seen), sent, copied)
		}
		// Of 100, 60 are taken and 30 each held and repeated; 5 is six standard
		// deviations away.
		if held < 5 || copied < 5 || late < 2 {
			t.Errorf("%v: %d held, %d repeated, %d out of order", addr, held, copied, late)
		}
		w.number(t, sent)
		if got := w.numbers(t, 50*time.Millisecond); len(got) != sent {
			t.Errorf("%v: %d of %d datagrams after the end", addr, len(got), sent)
		}
	}
}
