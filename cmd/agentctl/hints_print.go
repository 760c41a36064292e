// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/linkhint"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// hintPrinter writes lines as they come: the widths cannot follow the content.
type hintPrinter struct {
	e      *env
	json   bool
	clock  func(mono.Instant) time.Time
	headed bool
}

const hintLine = "%-12s  %-15s  %-12s  %-9s  %11s  %s"

func (p *hintPrinter) print(h linkNews) error {
	if p.json {
		return printJSON(p.e.stdout, p.object(h))
	}
	if !p.headed {
		p.headed = true
		if _, err := fmt.Fprintf(p.e.stdout, hintLine+"\n", "TIME", "DEVICE", "EVENT", "SOURCE", "LATENCY", "PEER"); err != nil {
			return err
		}
	}
	device, source := h.Name, h.Source.String()
	if h.Kind == 0 {
		device, source = "-", "route"
	}
	peer := ""
	if h.peer.IsValid() {
		peer = h.peer.String()
	}
	line := fmt.Sprintf(hintLine, p.time(h).Format("15:04:05.000"), device, h.what, source, latencyText(h.Event), peer)
	_, err := fmt.Fprintln(p.e.stdout, strings.TrimRight(line, " "))
	return err
}

// time is when it happened, as far as that is known.
func (p *hintPrinter) time(h linkNews) time.Time {
	at := h.At
	if at.IsZero() {
		at = h.seen
	}
	return p.clock(at).Round(time.Microsecond)
}

// exact reports whether a source has the kernel's own time.
func exact(s linkhint.Source) bool { return s == linkhint.Fentry || s == linkhint.Kprobe }

func latencyText(e linkhint.Event) string {
	switch {
	case e.Kind == 0 || e.Latency < 0:
		return "-"
	case exact(e.Source):
		return fmt.Sprintf("%.2f ms", milliseconds(e.Latency))
	}
	return fmt.Sprintf("<= %.2f ms", milliseconds(e.Latency))
}

// hintObject is a line in JSON. Its names are an interface for scripts.
type hintObject struct {
	Time      time.Time   `json:"time"`
	Event     string      `json:"event"`
	Device    *string     `json:"device"`
	Index     *int        `json:"ifindex"`
	Peer      *netip.Addr `json:"peer"`
	Source    *string     `json:"source"`
	Latency   *float64    `json:"latency_ms"`
	LatencyIs *string     `json:"latency_is"`
}

func (p *hintPrinter) object(h linkNews) hintObject {
	o := hintObject{
		Time: p.time(h).UTC(), Event: h.what,
		Device: unless("", h.Name), Index: unless(0, h.Index), Peer: unless(netip.Addr{}, h.peer),
	}
	if h.Kind != 0 {
		o.Source = new(h.Source.String())
	}
	if h.Kind != 0 && h.Latency >= 0 {
		o.Latency, o.LatencyIs = new(milliseconds(h.Latency)), new("at_most")
		if exact(h.Source) {
			o.LatencyIs = new("exact")
		}
	}
	return o
}
