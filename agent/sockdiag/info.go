// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"time"
)

// Info is what TCP knows of a connection: the part of struct tcp_info
// (include/uapi/linux/tcp.h) that tells how the peer is. Times "ago" are as of
// the answer and count from the connection's establishment when nothing has come
// or gone since; they are as fine as the kernel's tick (1 to 10 ms) and stand
// still while the machine is suspended. The kernel does not remember when it
// last sent an acknowledgement.
type Info struct {
	RTO         time.Duration // when a segment counts as lost
	RTT, RTTVar time.Duration // smoothed round trip, and its variation; 0: never measured
	MinRTT      time.Duration // 0: older than Linux 4.6, or never measured

	Retransmits  uint8  // in a row, without an answer
	Probes       uint8  // unanswered, for a closed window or keepalive
	Unacked      uint32 // segments
	Lost         uint32 // segments
	TotalRetrans uint32 // segments, over the connection's life

	LastDataSent     time.Duration // ago
	LastDataReceived time.Duration // ago
	LastAckReceived  time.Duration // ago

	// BytesAcked and BytesReceived are 0 before Linux 4.2.
	BytesAcked, BytesReceived uint64
}

// LastReceived is how long ago the peer has last given a sign of life on this
// connection: data or an acknowledgement.
func (i *Info) LastReceived() time.Duration { return min(i.LastDataReceived, i.LastAckReceived) }

// minInfo is the length of tcp_info since Linux 2.6.
const minInfo = 104

// parseInfo reads a tcp_info of any kernel: new fields are only ever appended.
// It returns nil when b is shorter than any kernel's.
func parseInfo(b []byte) *Info {
	if len(b) < minInfo {
		return nil
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	ms := func(at int) time.Duration { return time.Duration(u32(at)) * time.Millisecond }
	us := func(at int) time.Duration { return time.Duration(u32(at)) * time.Microsecond }
	i := &Info{
		Retransmits: b[2], Probes: b[3],
		RTO: us(8), Unacked: u32(24), Lost: u32(32),
		LastDataSent: ms(44), LastDataReceived: ms(52), LastAckReceived: ms(56),
		RTT: us(68), RTTVar: us(72), TotalRetrans: u32(100),
	}
	if len(b) >= 136 {
		i.BytesAcked = binary.NativeEndian.Uint64(b[120:])
		i.BytesReceived = binary.NativeEndian.Uint64(b[128:])
	}
	// The kernel's "never measured" is all ones.
	if len(b) >= 152 && u32(148) != ^uint32(0) {
		i.MinRTT = us(148)
	}
	return i
}
