// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

const (
	beatSize     = 24
	instanceSize = 48
)

// State is how the sender sees the session, as BFD's Sta field tells it
// (RFC 5880 section 4.1).
type State uint8

// Session states as both ends tell each other. The numbers are on the wire.
const (
	StateDown    State = 0 // no session, or ended by a verdict
	StateInit    State = 1 // shaking hands: not armed
	StateUp      State = 2 // valid beats have passed both ways: armed
	StateLate    State = 3 // armed, nothing heard for a while: probing
	StateSuspect State = 4 // armed, the silence is doubtful: probing
)

// String returns the state in lower case.
func (s State) String() string {
	names := [...]string{"down", "init", "up", "late", "suspect"}
	if int(s) < len(names) {
		return names[s]
	}
	return "unknown"
}

// Reason is why the sender's state last changed, as BFD's Diag field tells it
// (RFC 5880 section 4.1).
type Reason uint8

// Reasons. The numbers are on the wire.
const (
	ReasonNone       Reason = 0
	ReasonTimeout    Reason = 1  // nothing valid heard for heartbeat_timeout
	ReasonLinkDown   Reason = 2  // a link hint, and nothing heard within the grace
	ReasonDisconnect Reason = 3  // the transport broke without a BYE
	ReasonPeerDown   Reason = 4  // the peer says that it gave this session up
	ReasonStop       Reason = 5  // BYE: stopped
	ReasonRestart    Reason = 6  // BYE: comes back
	ReasonShutdown   Reason = 7  // BYE: its host shuts down
	ReasonLeave      Reason = 8  // BYE: left nobody behind
	ReasonRefused    Reason = 9  // the watchdog did not accept the session
	ReasonNoAnswer   Reason = 10 // heartbeat_connect_timeout passed
	ReasonReplaced   Reason = 11 // a newer session of the same conmgr took over
	ReasonLate       Reason = 12 // nothing heard for 1.25 intervals
	ReasonOwnPause   Reason = 13 // the own process or machine stood still
	ReasonHint       Reason = 14 // the kernel hinted at a lost link
	ReasonFuse       Reason = 15 // too many would die at once: one more timeout
	ReasonHeard      Reason = 16 // a valid frame ended the doubt
	ReasonArmed      Reason = 17 // valid beats have passed both ways
	ReasonOpened     Reason = 18 // a session was asked for
	ReasonLinkUp     Reason = 19 // the hint was taken back
)

var reasonNames = [...]string{
	"none", "timeout", "link down", "disconnect", "peer gave up", "stop", "restart",
	"host shutdown", "leave", "refused", "no answer", "replaced", "late", "own pause",
	"link hint", "fuse", "heard", "armed", "opened", "link up",
}

// String returns the reason as it stands in logs and views.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Beat is one heartbeat.
type Beat struct {
	Ack        uint64 // highest sequence number received from the peer, 0 for none
	AckDelayUS uint32 // how long ago that was, saturating
	Lost       uint32 // frames of the peer that never came, as a running count
	Received   uint32 // frames of the peer that came, as a running count
	State      State
	Reason     Reason
	Instance   Instance // valid when the header has FlagState
}

// Attribute is what an instance is now.
type Attribute uint8

// Attributes. The numbers are on the wire.
const (
	AttributeUnknown Attribute = 0
	AttributePrimary Attribute = 1
	AttributeStandby Attribute = 2
)

// String returns the seed's words: primary, standby, unknown.
func (a Attribute) String() string {
	switch a {
	case AttributePrimary:
		return "primary"
	case AttributeStandby:
		return "standby"
	}
	return "unknown"
}

// Status is whether an instance takes connections.
type Status uint8

// Statuses. The numbers are on the wire.
const (
	StatusUnknown      Status = 0 // not looked yet
	StatusUp           Status = 1
	StatusDown         Status = 2 // the postmaster is gone, or refuses
	StatusUnresponsive Status = 3 // the door check failed; held sessions may live
)

// String returns the status in lower case.
func (s Status) String() string {
	switch s {
	case StatusUp:
		return "up"
	case StatusDown:
		return "down"
	case StatusUnresponsive:
		return "unresponsive"
	}
	return "unknown"
}

// Instance is the whole state of an instance as its watchdog sees it. It is
// comparable: two equal values are the same state.
type Instance struct {
	Attribute  Attribute
	Status     Status
	ReadOnly   bool   // default_transaction_read_only
	Paused     bool   // agentctl pause: kills are suspended
	DryRun     bool   // watchdog.dry_run
	Timeline   uint32 // of a primary: where it writes; of a standby: what it replays
	WAL        uint64 // write or replay position
	SystemID   uint64 // pg_control's system identifier; 0 while unknown
	Port       uint16 // the postmaster's
	StartUS    int64  // postmaster start, µs since the Unix epoch; 0 while unknown
	Generation uint64 // rises with every change but those of WAL
}

const (
	bitReadOnly = 1 << iota
	bitPaused
	bitDryRun
)

func (v *Beat) parse(b []byte, flags Flags) error {
	if len(b) < beatSize {
		return ErrShort
	}
	v.Ack = binary.BigEndian.Uint64(b[0:])
	v.AckDelayUS = binary.BigEndian.Uint32(b[8:])
	v.Lost = binary.BigEndian.Uint32(b[12:])
	v.Received = binary.BigEndian.Uint32(b[16:])
	v.State, v.Reason = State(b[20]), Reason(b[21])
	if flags&FlagState == 0 {
		return nil
	}
	return v.Instance.parse(b[beatSize:])
}

func (v *Beat) append(dst []byte, flags Flags) []byte {
	dst = binary.BigEndian.AppendUint64(dst, v.Ack)
	dst = binary.BigEndian.AppendUint32(dst, v.AckDelayUS)
	dst = binary.BigEndian.AppendUint32(dst, v.Lost)
	dst = binary.BigEndian.AppendUint32(dst, v.Received)
	dst = append(dst, byte(v.State), byte(v.Reason), 0, 0)
	if flags&FlagState == 0 {
		return dst
	}
	return v.Instance.append(dst)
}

func (i *Instance) parse(b []byte) error {
	if len(b) < instanceSize {
		return ErrShort
	}
	*i = Instance{
		Attribute:  Attribute(b[0]),
		Status:     Status(b[1]),
		ReadOnly:   b[2]&bitReadOnly != 0,
		Paused:     b[2]&bitPaused != 0,
		DryRun:     b[2]&bitDryRun != 0,
		Timeline:   binary.BigEndian.Uint32(b[4:]),
		WAL:        binary.BigEndian.Uint64(b[8:]),
		SystemID:   binary.BigEndian.Uint64(b[16:]),
		Port:       binary.BigEndian.Uint16(b[24:]),
		StartUS:    int64(binary.BigEndian.Uint64(b[32:])),
		Generation: binary.BigEndian.Uint64(b[40:]),
	}
	return nil
}

func (i *Instance) append(dst []byte) []byte {
	var bits byte
	for _, b := range [...]struct {
		set bool
		bit byte
	}{{i.ReadOnly, bitReadOnly}, {i.Paused, bitPaused}, {i.DryRun, bitDryRun}} {
		if b.set {
			bits |= b.bit
		}
	}
	dst = append(dst, byte(i.Attribute), byte(i.Status), bits, 0)
	dst = binary.BigEndian.AppendUint32(dst, i.Timeline)
	dst = binary.BigEndian.AppendUint64(dst, i.WAL)
	dst = binary.BigEndian.AppendUint64(dst, i.SystemID)
	dst = binary.BigEndian.AppendUint16(dst, i.Port)
	dst = append(dst, 0, 0, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(i.StartUS))
	return binary.BigEndian.AppendUint64(dst, i.Generation)
}
