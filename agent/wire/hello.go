// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// ID names a daemon or a key, or is a nonce: 16 bytes without a meaning.
type ID [16]byte

// CookieSize is the size of UDP's proof of address in bytes.
const CookieSize = 32

const (
	helloSize   = 104
	welcomeSize = 80
	cookieSize  = 48
)

// Hello opens a session. It is larger than every answer that an unproven
// address can get, so nobody is amplified.
type Hello struct {
	Conmgr      ID     // stable: kept in the conmgr's directory
	Nonce       ID     // fresh for each attempt
	IntervalMS  uint32 // heartbeat_interval that both ends shall use
	TimeoutMS   uint32 // heartbeat_timeout that both ends shall use
	Incarnation uint64 // of the conmgr process: larger means started later
	Resumes     uint64 // session id this conmgr had before, 0 for none
	Key         ID     // key id, NUL padded; zero without a key
	Cookie      [CookieSize]byte
}

func (h *Hello) parse(b []byte) error {
	if len(b) < helloSize {
		return ErrShort
	}
	h.Conmgr, h.Nonce = ID(b[0:16]), ID(b[16:32])
	h.IntervalMS = binary.BigEndian.Uint32(b[32:])
	h.TimeoutMS = binary.BigEndian.Uint32(b[36:])
	h.Incarnation = binary.BigEndian.Uint64(b[40:])
	h.Resumes = binary.BigEndian.Uint64(b[48:])
	h.Key = ID(b[56:72])
	h.Cookie = [CookieSize]byte(b[72:104])
	return nil
}

func (h *Hello) append(dst []byte) []byte {
	dst = append(dst, h.Conmgr[:]...)
	dst = append(dst, h.Nonce[:]...)
	dst = binary.BigEndian.AppendUint32(dst, h.IntervalMS)
	dst = binary.BigEndian.AppendUint32(dst, h.TimeoutMS)
	dst = binary.BigEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.Resumes)
	dst = append(dst, h.Key[:]...)
	return append(dst, h.Cookie[:]...)
}

// Welcome accepts a session. The header's session id is the one to use.
type Welcome struct {
	Watchdog    ID     // stable: kept in the watchdog's state directory
	Nonce       ID     // the watchdog's half of the session key
	IntervalMS  uint32 // as applied
	TimeoutMS   uint32 // as applied
	Incarnation uint64 // of the watchdog process
	Key         ID     // key id in use
	Echo        ID     // the HELLO's nonce: proves that this answers it
}

func (w *Welcome) parse(b []byte) error {
	if len(b) < welcomeSize {
		return ErrShort
	}
	w.Watchdog, w.Nonce = ID(b[0:16]), ID(b[16:32])
	w.IntervalMS = binary.BigEndian.Uint32(b[32:])
	w.TimeoutMS = binary.BigEndian.Uint32(b[36:])
	w.Incarnation = binary.BigEndian.Uint64(b[40:])
	w.Key, w.Echo = ID(b[48:64]), ID(b[64:80])
	return nil
}

func (w *Welcome) append(dst []byte) []byte {
	dst = append(dst, w.Watchdog[:]...)
	dst = append(dst, w.Nonce[:]...)
	dst = binary.BigEndian.AppendUint32(dst, w.IntervalMS)
	dst = binary.BigEndian.AppendUint32(dst, w.TimeoutMS)
	dst = binary.BigEndian.AppendUint64(dst, w.Incarnation)
	dst = append(dst, w.Key[:]...)
	return append(dst, w.Echo[:]...)
}

// Cookie asks a stranger on UDP to repeat its HELLO with this cookie in it.
type Cookie struct {
	Cookie [CookieSize]byte
	Echo   ID // the HELLO's nonce
}

func (c *Cookie) parse(b []byte) error {
	if len(b) < cookieSize {
		return ErrShort
	}
	c.Cookie, c.Echo = [CookieSize]byte(b[0:32]), ID(b[32:48])
	return nil
}

func (c *Cookie) append(dst []byte) []byte {
	return append(append(dst, c.Cookie[:]...), c.Echo[:]...)
}
