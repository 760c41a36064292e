// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// relationBytes bounds what an armed relation takes of the heap; see also
// TestSessionMemory of agent/peer.
const relationBytes = 200

// A docket knows thousands of clients in little memory.
func TestDocketMemory(t *testing.T) {
	const clients = 8000
	d := NewDocket(DefaultPolicy())
	out := new(Orders)
	before := liveHeap()
	for i := range clients {
		c := Client{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i / 8 >> 8), byte(i / 8)}), Incarnation: 1}
		c.Conmgr = wire.ID(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)))
		d.Armed(1, uint64(i+1), c, 3*time.Second, time.Second, false, out)
		out.Reset()
	}
	used := (liveHeap() - before) / clients
	if d.Len() != clients {
		t.Fatalf("%d relations, want %d", d.Len(), clients)
	}
	t.Logf("%d bytes per relation", used)
	if used > relationBytes {
		t.Errorf("%d bytes per relation, expected at most %d", used, relationBytes)
	}
}

func liveHeap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
