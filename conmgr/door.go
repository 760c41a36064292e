// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// gssEncRequest is the code of a GSSENCRequest (PostgreSQL, pqcomm.h:
// NEGOTIATE_GSS_CODE). Both this and SSLRequest are answered with one byte by a
// new backend before it looks at anything else, so either proves a living
// postmaster. But a server with ssl = on takes a close after its "S" for a
// failed handshake and logs "could not accept SSL connection"; after the answer
// to this one, "G" or "N", it takes the close in silence (PostgreSQL 12 and
// later; be-secure-gssapi.c, ProcessStartupPacket). Seen on 15.18 with ssl on
// and off. log_connections = on logs any knock.
const gssEncRequest = 1234<<16 | 5680

// Door asks the instance at addr whether its postmaster takes connections, and
// blocks until it knows or ctx ends: give ctx a deadline, the one that
// FleetConfig.DoorTimeout has. dial is net.Dialer.DialContext or of its kind.
// PostgreSQL forks for each question.
//
// One byte back is DoorAnswers, whatever it says. A refused or reset connection
// is DoorRefused: the host's kernel lives, the postmaster does not. All else is
// DoorNoAnswer, an unreachable host and a close without a byte included.
func Door(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), addr netip.AddrPort) DoorOutcome {
	conn, err := dial(ctx, "tcp", addr.String())
	if err != nil {
		return refusedOr(err)
	}
	// The answer was read to its end, so this sends a FIN: a RST would be
	// logged by the server.
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if _, err := conn.Write(doorRequest()); err != nil {
		return refusedOr(err)
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return refusedOr(err)
	}
	return DoorAnswers
}

// doorRequest is a startup packet of the length 8 with nothing but its code.
func doorRequest() []byte {
	packet := binary.BigEndian.AppendUint32(nil, 8)
	return binary.BigEndian.AppendUint32(packet, gssEncRequest)
}

func refusedOr(err error) DoorOutcome {
	for _, errno := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, errno) {
			return DoorRefused
		}
	}
	return DoorNoAnswer
}
