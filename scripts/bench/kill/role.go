// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"

	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
)

// isChild reports whether the program was started by itself.
func isChild(args []string) bool {
	return len(args) == 2 && args[0] == verbHold || len(args) == 3 && args[0] == verbServe
}

// runChild plays the role that the arguments name, until its input ends.
func runChild(args []string) error {
	role, err := newRole(args)
	if err != nil {
		return err
	}
	return child.Serve(role, os.Stdin, os.Stdout)
}

func newRole(args []string) (child.Role, error) {
	if args[0] == verbHold {
		return &holding{addr: args[1]}, nil
	}
	addr, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return nil, err
	}
	peer, err := netip.ParseAddr(args[2])
	if err != nil {
		return nil, err
	}
	return newServing(addr, peer)
}
