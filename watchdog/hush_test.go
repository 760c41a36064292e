// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

func TestHushBoundsOneAddress(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	h := hush{log: slog.New(slog.NewTextHandler(&text, nil))}
	noisy, quiet := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	told := func(minute int) (n int) {
		for i := range 1000 {
			if h.tell(mono.Instant(time.Duration(minute)*time.Minute+time.Duration(i)*time.Millisecond), noisy) {
				n++
			}
		}
		return n
	}
	if n := told(1); n != hushLines {
		t.Errorf("%d lines of 1000 told, want %d", n, hushLines)
	}
	if !h.tell(mono.Instant(time.Minute+time.Second), quiet) {
		t.Error("another address is not told of")
	}
	if n := bytes.Count(text.Bytes(), []byte("come and go")); n != 1 {
		t.Errorf("%d lines about the noise, want 1\n%s", n, text.String())
	}
	if n := told(3); n != hushLines {
		t.Errorf("%d lines told in a later minute, want %d", n, hushLines)
	}
	if !bytes.Contains(text.Bytes(), []byte("lines=940")) {
		t.Errorf("how many were left out is not said:\n%s", text.String())
	}
}

// Addresses cost memory too.
func TestHushBoundsAddresses(t *testing.T) {
	t.Parallel()
	h := hush{log: slog.New(slog.DiscardHandler)}
	n := 0
	for i := range 2 * hushAddrs {
		if h.tell(mono.Instant(time.Hour), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})) {
			n++
		}
	}
	if n != hushAddrs || len(h.lines) != hushAddrs {
		t.Errorf("%d addresses told of, %d kept: want %d", n, len(h.lines), hushAddrs)
	}
	if h.tell(mono.Instant(time.Hour+time.Minute), netip.MustParseAddr("192.0.2.1")) == false {
		t.Error("a new address is not told of in the next minute")
	}
}
