// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

func TestHintLines(t *testing.T) {
	const at = mono.Instant(77 * time.Hour)
	lost := linkhint.Event{Index: 2, Name: "eth0", Kind: linkhint.CarrierLost, Source: linkhint.Kprobe, At: at, Latency: 310 * time.Microsecond}
	back := linkhint.Event{Index: 2, Name: "eth0", Kind: linkhint.CarrierBack, Source: linkhint.Counter, At: at, Latency: 4200 * time.Microsecond}
	down := linkhint.Event{Index: 30, Name: "abcdefghijklmno", Kind: linkhint.AdminDown, Source: linkhint.Rtnetlink, At: at, Latency: -1}
	peer := netip.MustParseAddr("fe80::1%eth0")
	news := []linkNews{
		{Event: lost, what: lost.Kind.String(), seen: at},
		{Event: lost, what: "path lost", peer: peer, seen: at},
		{Event: back, what: back.Kind.String(), seen: at},
		{Event: down, what: down.Kind.String(), seen: at},
		{what: "path off", peer: netip.MustParseAddr("192.0.2.1"), seen: at},
	}
	for name, json := range map[string]bool{"hints.txt": false, "hints.jsonl": true} {
		s := newSession(0, "")
		p := hintPrinter{e: &s.env, json: json, clock: func(i mono.Instant) time.Time { return noon.Add(i.Sub(at)) }}
		for i, h := range news {
			h.seen = h.seen.Add(time.Duration(i) * time.Second) // counts when nobody knows more
			if err := p.print(h); err != nil {
				t.Fatal(err)
			}
		}
		golden(t, name, s.out.String())
	}
}
