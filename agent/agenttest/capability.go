// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Capabilities is a set of capabilities of capabilities(7), one bit each.
type Capabilities uint64

// CapabilitySet returns the set of the given ones, unix.CAP_NET_ADMIN and the like.
func CapabilitySet(capabilities ...int) (set Capabilities) {
	for _, c := range capabilities {
		set |= 1 << c
	}
	return set
}

// AllCapabilities is the set of all that the running kernel may know.
const AllCapabilities = Capabilities(1<<(unix.CAP_LAST_CAP+1) - 1)

// KeepOnly takes all other capabilities from the calling thread, for good: it must be
// one that ends, as that of Host.Do.
func (set Capabilities) KeepOnly() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for i := range data {
		data[i].Permitted &= uint32(set >> (32 * i))
		data[i].Effective, data[i].Inheritable = data[i].Permitted, 0
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
