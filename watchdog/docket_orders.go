// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Warrant is the order to end the database sessions of one client address that
// began before Verdict.
type Warrant struct {
	ID      uint64 // of one agent process, rising from 1
	Addr    netip.Addr
	Conmgr  wire.ID
	Case    Case
	Reason  wire.Reason
	Session uint64 // heartbeat session that ended; 0 when restored
	// Generation counts the armed sessions of this conmgr, this one included.
	Generation uint64
	LastValid  mono.Instant // last valid frame; zero when none is known
	// Verdict is when the session ended (restored: when the agent was ready).
	// What began during a wait began after it and is never ended.
	Verdict mono.Instant
	Issued  mono.Instant  // when the policy decided: Verdict plus what was waited
	Timeout time.Duration // heartbeat_timeout of the session
	// Interval is its heartbeat_interval, the slack of the last look.
	Interval    time.Duration
	OwnPause    bool // the agent itself stood still during the silence
	Replication bool // end walsenders too
	DryRun      bool // everything but the kill
}

// DocketKind says what a [DocketEvent] tells.
type DocketKind uint8

// Kinds of event.
const (
	DocketWaiting   DocketKind = iota + 1 // a session ended; its conmgr has until Until to come back
	DocketSpared                          // would be terminated, but another session of the address lives
	DocketIgnored                         // ended, and the policy ends nobody
	DocketWarrant                         // a warrant was written
	DocketSuspended                       // would be terminated, but kills are paused
	DocketComeback                        // the conmgr came back: wait or warrant over
	DocketProtected                       // would be judged, but the address is protected by now
	DocketRestored                        // taken over from the agent's last life
	DocketOverflow                        // too many relations: this one is not tracked, so never ended
	DocketPaused                          // kills are suspended until Until
	DocketResumed                         // kills are allowed again
)

var docketKindNames = []string{
	"unknown", "waiting for comeback", "client spared", "session end ignored", "warrant written",
	"warrant suspended", "client came back", "client protected", "session restored",
	"too many clients", "kills paused", "kills resumed",
}

// String returns the kind as a log message.
func (k DocketKind) String() string { return nameOf(docketKindNames, int(k)) }

// DocketEvent is one line for the log, as data. Fields without a meaning for
// its kind are zero.
type DocketEvent struct {
	At      mono.Instant
	Kind    DocketKind
	Addr    netip.Addr
	Conmgr  wire.ID
	Session uint64
	Warrant uint64
	Case    Case
	Reason  wire.Reason
	Silence time.Duration
	Until   mono.Instant
	DryRun  bool
}

// Orders collects what the caller of a [Docket] has to do. The caller owns it,
// passes it to every call and resets it; the docket only appends.
type Orders struct {
	Execute []Warrant // hand to the terminator, each once
	Close   []uint64  // warrants to stop: the client came back, or kills are paused
	// Persist asks to store [Docket.Records]. The caller may batch.
	Persist bool
	Events  []DocketEvent
}

// Reset empties the orders and keeps their memory.
func (o *Orders) Reset() {
	*o = Orders{Execute: o.Execute[:0], Close: o.Close[:0], Events: o.Events[:0]}
}
