// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// noted are sessions that note what they are told.
type noted []string

func (n *noted) Do(f func()) { f() }
func (n *noted) LinkLost(peer netip.Addr, grace time.Duration) {
	*n = append(*n, fmt.Sprintf("%v lost, %v", peer, min(grace, time.Hour)))
}
func (n *noted) LinkBack(peer netip.Addr) { *n = append(*n, fmt.Sprintf("%v back", peer)) }

func TestTell(t *testing.T) {
	var got noted
	count := true
	tell := Tell(&got, func() (time.Duration, bool) { return time.Second, count })
	peer := netip.MustParseAddr("192.0.2.1")
	for _, s := range []State{Lost, Off, Good} {
		tell(Path{Peer: peer, State: s})
	}
	count = false // switched off while a hint stands
	for _, s := range []State{Lost, Off, Good} {
		tell(Path{Peer: peer, State: s})
	}
	want := noted{"192.0.2.1 lost, 1s", "192.0.2.1 lost, 1h0m0s", "192.0.2.1 back", "192.0.2.1 back"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
