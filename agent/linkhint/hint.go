// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// hintLen is the size of struct hint (bpf/linkhint.h):
//
//	 0  at       ns on CLOCK_BOOTTIME
//	 8  ifindex
//	12  netns    inode of the device's network namespace
//	16  name     with its NUL
//	32  kind     1 lost, 2 back
//	33  pad
const hintLen = 40

// parseHint reads a struct hint in the machine's byte order. The event does not
// point into b. A device always has a number, so that 0 is an error, too.
func parseHint(b []byte) (carrierEvent, error) {
	if len(b) < hintLen {
		return carrierEvent{}, fmt.Errorf("parse hint: %d bytes, want %d", len(b), hintLen)
	}
	name, _, terminated := bytes.Cut(b[16:32], []byte{0})
	kind, index := b[32], int32(binary.NativeEndian.Uint32(b[8:]))
	if !terminated || kind < 1 || kind > 2 || index <= 0 {
		return carrierEvent{}, fmt.Errorf("parse hint: device %d, kind %d, name %q", index, kind, name)
	}
	return carrierEvent{
		index: int(index), name: string(name), lost: kind == 1,
		at: mono.Instant(binary.NativeEndian.Uint64(b)),
	}, nil
}
