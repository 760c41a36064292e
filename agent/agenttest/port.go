// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// FreePort returns a TCP port that nobody has on any address. It is below those that
// the kernel gives to outgoing connections and to listeners that name none
// (net.ipv4.ip_local_port_range), so that none of the tests that run beside this one
// comes to have it before it is used; where they leave no room, it is any one.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	low := lowestEphemeral(t)
	if low <= lowestFree {
		low = 1 << 16
	}
	for range 1000 {
		port := lowestFree + rand.IntN(low-lowestFree)
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			_ = l.Close()
			return uint16(port)
		}
	}
	t.Fatalf("no port between %d and %d is free", lowestFree, low)
	return 0
}

// lowestFree is above the ports of services that a machine may have.
const lowestFree = 12000

func lowestEphemeral(t testing.TB) (low int) {
	t.Helper()
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(file)
	if err == nil {
		_, err = fmt.Sscan(string(text), &low)
	}
	if err != nil {
		t.Fatalf("%s: %q: expected two numbers: %v", file, text, err)
	}
	return low
}
