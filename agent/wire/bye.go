// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

const (
	byeSize      = 4
	refuseSize   = 24
	registerSize = 4
	entrySize    = 8
)

// ByeKind says what the sender's leaving means for its sessions.
type ByeKind uint8

// Kinds of BYE. The numbers are on the wire; an unknown one counts as ByeStop.
const (
	ByeStop     ByeKind = 1 // stopped: policy on_shutdown
	ByeRestart  ByeKind = 2 // comes back: wait
	ByeShutdown ByeKind = 3 // the host shuts down: policy on_shutdown
	ByeLeave    ByeKind = 4 // nobody is left behind: kill nobody
)

// Reason returns the state-change reason that a BYE of this kind gives.
func (k ByeKind) Reason() Reason {
	switch k {
	case ByeRestart:
		return ReasonRestart
	case ByeShutdown:
		return ReasonShutdown
	case ByeLeave:
		return ReasonLeave
	}
	return ReasonStop
}

// Bye ends a session on purpose.
type Bye struct{ Kind ByeKind }

func (y *Bye) parse(b []byte) error {
	if len(b) < byeSize {
		return ErrShort
	}
	y.Kind = ByeKind(b[0])
	return nil
}

func (y *Bye) append(dst []byte) []byte { return append(dst, byte(y.Kind), 0, 0, 0) }

// Code is why a watchdog refuses a session. A code, not a text, so that no
// stranger writes into the other side's log.
type Code uint16

// Refusals. The numbers are on the wire.
const (
	CodeVersion    Code = 1 // Limit: the version we speak
	CodeFull       Code = 2 // Limit: watchdog.max_heartbeat_connections
	CodeInterval   Code = 3 // Limit: watchdog.min_heartbeat_interval in ms
	CodeTimeout    Code = 4 // Limit: watchdog.max_heartbeat_timeout in ms, or the shortest one
	CodeAddress    Code = 5 // not in watchdog.clients
	CodePerAddress Code = 6 // Limit: sessions per address
	CodeKey        Code = 7 // a key is required, or this one is not known
	CodeStopping   Code = 8 // the watchdog is going down
	CodeSession    Code = 9 // UDP, answers a BEAT: no such session here; Echo is EchoOf the BEAT
)

// EchoOf returns what the answer to a frame that is no HELLO has for a nonce: the
// session id and the sequence number of that frame.
func EchoOf(h *Header) (echo ID) {
	binary.BigEndian.PutUint64(echo[:], h.Session)
	binary.BigEndian.PutUint64(echo[8:], h.Seq)
	return echo
}

// Echoed takes apart what [EchoOf] has made.
func (r *Refuse) Echoed() (session, seq uint64) {
	return binary.BigEndian.Uint64(r.Echo[:]), binary.BigEndian.Uint64(r.Echo[8:])
}

// Refuse answers a HELLO that is not accepted.
type Refuse struct {
	Code  Code
	Limit uint32
	Echo  ID // the HELLO's nonce
}

func (r *Refuse) parse(b []byte) error {
	if len(b) < refuseSize {
		return ErrShort
	}
	r.Code = Code(binary.BigEndian.Uint16(b))
	r.Limit = binary.BigEndian.Uint32(b[4:])
	r.Echo = ID(b[8:24])
	return nil
}

func (r *Refuse) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Code))
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, r.Limit)
	return append(dst, r.Echo[:]...)
}

// parseRegister checks the shape of a REGISTER and no more: the type is
// reserved, so a watchdog of this version accepts and ignores it.
func parseRegister(b []byte) error {
	if len(b) < registerSize {
		return ErrShort
	}
	if n := int(binary.BigEndian.Uint16(b)); len(b) < registerSize+n*entrySize {
		return ErrShort
	}
	return nil
}
