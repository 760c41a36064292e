// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"encoding/binary"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// transport carries the frames of one session. *stream is the TCP one, *datagram
// and *endpoint the two ends of the UDP one.
type transport interface {
	// send sends frames in order, each behind its length as TCP has it. What the
	// peer does not take is dropped, but never a part of a frame; a goodbye is
	// worth waiting for.
	send(frames []byte, goodbye bool)
	// close ends the transport. reset discards what is unsent.
	close(reset bool)
	// kernelLife returns when the peer's kernel was heard last, zero when unknown.
	kernelLife() mono.Instant
}

// owner is who a transport reports to. After broken the transport is closed.
type owner interface {
	connected(transport)
	// frame delivers a frame, with its bytes, which are valid during the call.
	frame(t transport, raw []byte, f *wire.Frame, err error)
	broken(transport, error)
}

// nextFrame takes the first frame off a buffer that our own code has made.
func nextFrame(b []byte) (frame, rest []byte) {
	n := wire.PrefixSize + int(binary.BigEndian.Uint16(b))
	return b[wire.PrefixSize:n], b[n:]
}
