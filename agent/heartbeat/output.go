// SPDX-License-Identifier: Apache-2.0

package heartbeat

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Close tells the driver how to end the transport.
type Close uint8

// Ways to end a transport.
const (
	CloseNone  Close = iota
	CloseFlush       // after what is queued: the peer shall read it (FIN)
	CloseReset       // now (RST): the peer is taken for gone
)

// Output collects what a driver has to do. The driver owns it, passes it to
// every call and resets it; a machine only appends.
type Output struct {
	Frames  []wire.Frame // to send, in order, complete but for the MAC
	Dial    bool         // Active: open a transport now, then call Connected or Broken
	Close   Close        // after Frames
	Changes []Change     // state changes, in order
	// Instance is set when the peer's instance state differs from the one
	// before in anything but the WAL position, and for the first state of each
	// session. Active only.
	Instance bool
	// Signal is set when the conmgr's signals differ from before. Passive only.
	Signal bool
	// Refused is the watchdog's refusal, when one came. Active only.
	Refused *wire.Refuse
}

// Reset empties the output and keeps its memory.
func (o *Output) Reset() {
	*o = Output{Frames: o.Frames[:0], Changes: o.Changes[:0]}
}

// Change is one change of state.
type Change struct {
	At        mono.Instant
	From, To  wire.State
	Reason    wire.Reason
	LastValid mono.Instant // last valid frame heard in the relation; zero for never
	Silence   time.Duration
	// OwnPause says that this end stood still during the silence: whatever
	// ended the session, the peer may have had no chance.
	OwnPause bool
	// Own says that this end left by itself, by Stop or Replace: nothing is said
	// about the peer.
	Own bool
}

// Armed reports whether s is one of the states in which valid beats have
// passed both ways.
func Armed(s wire.State) bool {
	return s == wire.StateUp || s == wire.StateLate || s == wire.StateSuspect
}

// Verdict reports whether the change is a judgement about the peer: it ends an
// armed session, and not because this end left by itself.
func (c Change) Verdict() bool { return Armed(c.From) && !Armed(c.To) && !c.Own }

// Stats are running figures of a session.
type Stats struct {
	RTT                  time.Duration // smoothed (RFC 6298 section 2), 0 while unknown
	Sent, Received, Lost uint64        // frames; Lost counts gaps in the peer's sequence
	Invalid              uint32        // frames dropped: stale, foreign session, bad in state
	PeerLost             uint32        // what the peer says it missed
	Pauses, Holds        uint32        // own pauses noticed, fuses held
}
