// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

const (
	// hushEvery is how long an address that has talked too much is not told of.
	hushEvery = time.Minute
	// hushLines is how many lines and events one address may cause in that time:
	// eight sessions that all come, go and come back need less.
	hushLines = 60
	// hushAddrs bounds how many addresses are counted at a time; others are not
	// told of until the minute is over.
	hushAddrs = 1 << 14
)

// hush bounds the lines and events that sessions of one address can cause by
// coming and going. Without keys everybody on a host of watchdog.clients may do
// that, as often as he likes, and what is kept of kills must not be pushed out by
// it. Warrants and kills are told whatever this says. The zero value needs a log.
type hush struct {
	log   *slog.Logger
	since mono.Instant
	lines map[netip.Addr]int // since then
	left  int                // not told since then
}

// tell reports whether something of an address may be told.
func (h *hush) tell(now mono.Instant, addr netip.Addr) bool {
	if h.lines == nil || now.Sub(h.since) >= hushEvery {
		h.begin(now)
	}
	n := h.lines[addr]
	if n == 0 && len(h.lines) >= hushAddrs || n > hushLines {
		h.left++
		return false
	}
	h.lines[addr] = n + 1
	if n < hushLines {
		return true
	}
	h.left++
	h.log.Warn("sessions of one address come and go all the time: they are not told for up to a minute",
		"peer", addr, "lines", n, "expected", "one conmgr for each set of instances; without keys, nobody else on that host who opens sessions")
	return false
}

// begin starts the next minute.
func (h *hush) begin(now mono.Instant) {
	if h.left > 0 {
		h.log.Info("not told in the last minute", "lines", h.left)
	}
	h.since, h.lines, h.left = now, map[netip.Addr]int{}, 0
}
