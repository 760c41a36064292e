// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// Source is who told of a change of a link.
type Source uint8

// The sources, best first.
const (
	Fentry Source = iota
	Kprobe
	Counter
	Rtnetlink
)

// String returns the source's name as it stands in logs and views.
func (s Source) String() string {
	names := [...]string{"fentry", "kprobe", "counter", "rtnetlink"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Kind is what happened to a link.
type Kind uint8

// Kinds of events. A device without IFF_UP has no carrier that counts.
const (
	CarrierLost Kind = iota + 1
	CarrierBack
	AdminDown
	AdminUp // or a new device that is up, with or without a carrier
	Removed // or moved to another namespace
)

// String returns what happened as it stands in logs and views.
func (k Kind) String() string {
	names := [...]string{CarrierLost: "carrier lost", CarrierBack: "carrier back", AdminDown: "set down", AdminUp: "set up", Removed: "removed"}
	if k > 0 && int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Event is one confirmed change of a link of this network namespace.
type Event struct {
	Index  int // of the device
	Name   string
	Kind   Kind
	Source Source
	// At is when it happened, as far as the source tells: fentry and kprobe have the
	// kernel's own time; the others only when they saw it.
	At mono.Instant
	// Latency is from the kernel's time until the event was confirmed here (fentry,
	// kprobe), or since the last look that saw no change (counter: at most that
	// long); the look at the device included. Negative when the source does not tell
	// (rtnetlink).
	Latency time.Duration
}

// State is what is known of the way to a peer.
type State uint8

// States of a path.
const (
	Good State = iota
	Lost       // no carrier
	Off        // set down, removed, or without a route
)

// String returns the state as it stands in logs and views.
func (s State) String() string {
	names := [...]string{"good", "lost", "off"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Path is a change of the way to a watched peer.
type Path struct {
	Peer  netip.Addr
	State State
	// Cause is the event that led to it; its Kind is 0 when a route, a rule or an
	// address changed, or a device below others.
	Cause Event
}

// Missing says why a source is not used although it would be a better one.
type Missing struct {
	Source Source
	Err    error
	Hint   string // what the operator can do
}
