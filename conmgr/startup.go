// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Limits of the first packet, its length word included. PostgreSQL's
// MAX_STARTUP_PACKET_LENGTH is 10000 too.
const (
	startupMin = 8
	startupMax = 10_000
)

// Protocol versions and the codes that stand in their place (pqcomm.h).
const (
	protocol30     = 3 << 16
	protocol32     = 3<<16 | 2
	cancelCode     = 1234<<16 | 5678
	sslCode        = 1234<<16 | 5679
	gssCode        = 1234<<16 | 5680
	tlsFirstByte   = 0x16 // a TLS handshake record: sslnegotiation=direct
	protocolLatest = protocol32
)

// startupKind is what a first packet asks for.
type startupKind uint8

const (
	startupSession startupKind = iota
	startupCancel
	startupSSL
	startupGSS
)

// startup is a first packet.
type startup struct {
	kind     startupKind
	version  uint32            // as asked for
	params   map[string]string // the last of duplicates counts, as in PostgreSQL
	protocol []string          // names that begin with _pq_.: none is known here
	raw      []byte            // as it came, without the length word; see handshake
}

// param returns a parameter of the session, empty when it is not given.
func (s *startup) param(name string) string { return s.params[name] }

// database returns the database asked for: the user's name when none is.
func (s *startup) database() string {
	if db := s.params["database"]; db != "" {
		return db
	}
	return s.params["user"]
}

// speaks returns the version that is spoken then, and whether the client must
// be told (NegotiateProtocolVersion).
func (s *startup) speaks() (version uint32, tell bool) {
	version = min(s.version, protocolLatest)
	return version, version != s.version || len(s.protocol) > 0
}

// checkStartupLength judges the length word, before anything is read.
func checkStartupLength(length uint32) error {
	if length>>24 == tlsFirstByte {
		return errDirectTLS
	}
	if length < startupMin || length > startupMax {
		return fatal("08P01", "invalid length of startup packet: %d, expected %d to %d", length, startupMin, startupMax)
	}
	return nil
}

// errDirectTLS ends the connection without an answer: a client that begins
// with TLS could not read one.
var errDirectTLS = fatal("08P01", "direct TLS is not served here: use a pass-through port")

// parseStartup reads a first packet without its length word, as PostgreSQL's
// ProcessStartupPacket does. The code is a kind only while it is still allowed
// (ssl, gss), else an unsupported version.
func parseStartup(body []byte, ssl, gss bool) (startup, error) {
	if len(body) < 4 {
		return startup{}, fatal("08P01", "startup packet without a protocol version")
	}
	code := binary.BigEndian.Uint32(body)
	switch {
	case code == cancelCode:
		return startup{kind: startupCancel}, checkCancel(body)
	case code == sslCode && ssl:
		return startup{kind: startupSSL}, nil
	case code == gssCode && gss:
		return startup{kind: startupGSS}, nil
	case code>>16 != protocol30>>16:
		return startup{}, fatal("0A000", "unsupported frontend protocol %d.%d: server supports 3.0 to %d.%d",
			code>>16, code&0xffff, protocolLatest>>16, protocolLatest&0xffff)
	}
	s := startup{version: code, params: map[string]string{}}
	if err := s.parseParams(body[4:]); err != nil {
		return startup{}, err
	}
	if s.params["user"] == "" {
		return startup{}, fatal("28000", "no PostgreSQL user name specified in startup packet")
	}
	return s, nil
}

// parseParams reads pairs of zero-terminated strings up to an empty name,
// which must be the last byte.
func (s *startup) parseParams(b []byte) error {
	for {
		name, rest, ok := bytes.Cut(b, []byte{0})
		switch {
		case !ok:
			return fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
		case len(name) == 0 && len(rest) != 0:
			return fatal("08P01", "invalid startup packet layout: %d bytes behind the terminator", len(rest))
		case len(name) == 0:
			return nil
		}
		value, rest, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return fatal("08P01", "invalid startup packet layout: a parameter has no value")
		}
		if n := string(name); strings.HasPrefix(n, "_pq_.") {
			s.protocol = append(s.protocol, n)
		} else {
			s.params[n] = string(value)
		}
		b = rest
	}
}

func checkCancel(body []byte) error { return checkKey(body[4:]) }

// checkKey wants a process id and a secret of 4 to 256 bytes (protocol 3.2).
func checkKey(key []byte) error {
	if secret := len(key) - 4; secret < 4 || secret > 256 {
		return fatal("08P01", "cancel key of %d bytes: expected 4 to 256", max(secret, 0))
	}
	return nil
}

// pgError is an error that the client is told in PostgreSQL's words.
type pgError struct {
	severity, code, message, detail, hint string
}

// Error returns the message with its code.
func (e *pgError) Error() string { return fmt.Sprintf("%s (SQLSTATE %s)", e.message, e.code) }

// fatal makes an error after which the connection is closed.
func fatal(code, format string, args ...any) *pgError {
	return &pgError{severity: "FATAL", code: code, message: fmt.Sprintf(format, args...)}
}

// failure makes an error that ends one statement.
func failure(code, format string, args ...any) *pgError {
	return &pgError{severity: "ERROR", code: code, message: fmt.Sprintf(format, args...)}
}

// withHint returns e with a hint.
func (e *pgError) withHint(hint string) *pgError {
	out := *e
	out.hint = hint
	return &out
}
