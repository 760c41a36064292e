// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/binary"
	"errors"
)

// Sizes in bytes and the protocol's constants.
const (
	Magic      = 0x4342
	Version    = 1
	HeaderSize = 40
	// MaxFrame is the largest frame that is accepted. It fits any path MTU that
	// IPv6 allows (RFC 8200 section 5: 1280), so UDP never fragments.
	MaxFrame = 512
	// PrefixSize is the length in front of every frame on TCP.
	PrefixSize = 2
)

// Places in a header that is already encoded, for what is put in afterwards (the
// MAC) or looked at before the frame is parsed.
const (
	OffsetType  = 3
	OffsetAuth  = 6
	OffsetEpoch = 7
	OffsetSeq   = 16
	OffsetMAC   = 24
	MACSize     = 16
)

// Values of Header.Auth.
const (
	AuthNone = 0
	AuthHMAC = 1 // HMAC-SHA-256 truncated to 128 bits (RFC 4868 section 2.1.1)
)

// Errors of [Parse]; compare with errors.Is.
var (
	ErrShort   = errors.New("frame is shorter than its type needs")
	ErrLong    = errors.New("frame is longer than 512 bytes")
	ErrMagic   = errors.New("not a pgconmgr heartbeat frame")
	ErrVersion = errors.New("heartbeat protocol version differs from ours, which is 1")
	ErrType    = errors.New("unknown frame type")
)

// Type tells what a frame's body holds.
type Type uint8

// Frame types. The numbers are on the wire and never change.
const (
	TypeHello    Type = 1 // conmgr opens a session
	TypeWelcome  Type = 2 // the watchdog accepts it
	TypeBeat     Type = 3 // heartbeat, probe, or answer to a probe
	TypeBye      Type = 4 // the sender leaves on purpose
	TypeRefuse   Type = 5 // the watchdog does not accept it, and why
	TypeCookie   Type = 6 // prove your address first (UDP)
	TypeRegister Type = 7 // conmgr's applications (reserved)
)

// String returns the name used in the package comment.
func (t Type) String() string {
	names := [...]string{"?", "HELLO", "WELCOME", "BEAT", "BYE", "REFUSE", "COOKIE", "REGISTER"}
	if int(t) < len(names) {
		return names[t]
	}
	return "?"
}

// Flags of a BEAT, FlagEnded of a WELCOME.
type Flags uint16

// Flag bits. Unknown ones are ignored.
const (
	FlagProbe  Flags = 1 << iota // answer this frame at once
	FlagAnswer                   // this frame answers a probe
	FlagState                    // an instance state follows the BEAT's body
	FlagSeek                     // conmgr waits for a primary: look often
	FlagSlow                     // conmgr saw a slow connect: look at the instance's door
	FlagEnded                    // WELCOME: the watchdog has ended this client's database sessions
)

// Signals are the flags by which a conmgr tells its own state in every beat.
const Signals = FlagSeek | FlagSlow

// Header is the part that all frames share.
type Header struct {
	Type    Type
	Flags   Flags
	Auth    uint8 // AuthNone or AuthHMAC
	Epoch   uint8 // which of the session's keys made the MAC
	Session uint64
	Seq     uint64
	MAC     [MACSize]byte
}

// Frame is one frame as a value. Only the body that Header.Type names has a
// meaning. A Frame holds no reference to the bytes it was parsed from.
type Frame struct {
	Header
	Hello   Hello
	Welcome Welcome
	Beat    Beat
	Bye     Bye
	Refuse  Refuse
	Cookie  Cookie
}

// Parse reads the frame that fills b into f. On ErrVersion and ErrType the
// header (as far as version 1 knows it) is filled in, so that the caller can
// answer or count; on every other error f is undefined.
func Parse(b []byte, f *Frame) error {
	switch {
	case len(b) > MaxFrame:
		return ErrLong
	case len(b) < HeaderSize:
		return ErrShort
	case binary.BigEndian.Uint16(b) != Magic:
		return ErrMagic
	}
	*f = Frame{Header: parseHeader(b)}
	if b[2] != Version {
		return ErrVersion
	}
	body := b[HeaderSize:]
	switch f.Type {
	case TypeHello:
		return f.Hello.parse(body)
	case TypeWelcome:
		return f.Welcome.parse(body)
	case TypeBeat:
		return f.Beat.parse(body, f.Flags)
	case TypeBye:
		return f.Bye.parse(body)
	case TypeRefuse:
		return f.Refuse.parse(body)
	case TypeCookie:
		return f.Cookie.parse(body)
	case TypeRegister:
		return parseRegister(body)
	}
	return ErrType
}

// Append appends f to dst and returns the extended slice. It panics when
// f.Type is not one that this version sends (REGISTER is reserved): frames to
// send are made by our own code.
func Append(dst []byte, f *Frame) []byte {
	dst = appendHeader(dst, &f.Header)
	switch f.Type {
	case TypeHello:
		return f.Hello.append(dst)
	case TypeWelcome:
		return f.Welcome.append(dst)
	case TypeBeat:
		return f.Beat.append(dst, f.Flags)
	case TypeBye:
		return f.Bye.append(dst)
	case TypeRefuse:
		return f.Refuse.append(dst)
	case TypeCookie:
		return f.Cookie.append(dst)
	}
	panic("wire: append of a type that is never sent")
}

// AppendPrefixed appends f as TCP carries it: its length as two bytes, then
// the frame.
func AppendPrefixed(dst []byte, f *Frame) []byte {
	at := len(dst)
	dst = Append(append(dst, 0, 0), f)
	binary.BigEndian.PutUint16(dst[at:], uint16(len(dst)-at-PrefixSize))
	return dst
}

// Split takes the first length-prefixed frame off b. It returns nil and b when
// b does not hold a whole one yet, and ErrLong or ErrShort when the length can
// be of no frame: the stream cannot be read any further then.
func Split(b []byte) (frame, rest []byte, err error) {
	if len(b) < PrefixSize {
		return nil, b, nil
	}
	n := int(binary.BigEndian.Uint16(b))
	switch {
	case n > MaxFrame:
		return nil, b, ErrLong
	case n < HeaderSize:
		return nil, b, ErrShort
	case len(b) < PrefixSize+n:
		return nil, b, nil
	}
	return b[PrefixSize : PrefixSize+n], b[PrefixSize+n:], nil
}

func parseHeader(b []byte) Header {
	return Header{
		Type:    Type(b[3]),
		Flags:   Flags(binary.BigEndian.Uint16(b[4:])),
		Auth:    b[6],
		Epoch:   b[7],
		Session: binary.BigEndian.Uint64(b[8:]),
		Seq:     binary.BigEndian.Uint64(b[16:]),
		MAC:     [MACSize]byte(b[OffsetMAC:]),
	}
}

func appendHeader(dst []byte, h *Header) []byte {
	dst = binary.BigEndian.AppendUint16(dst, Magic)
	dst = append(dst, Version, byte(h.Type))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Flags))
	dst = append(dst, h.Auth, h.Epoch)
	dst = binary.BigEndian.AppendUint64(dst, h.Session)
	dst = binary.BigEndian.AppendUint64(dst, h.Seq)
	return append(dst, h.MAC[:]...)
}
