// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/pgconmgr/pgconmgr/scripts/bench/child"
)

// Roles of this program when it is started by itself.
const (
	verbLoad  = "load"  // applications on the client host
	verbServe = "serve" // backends on a database host: serve ADDRESS:PORT
)

// isChild reports whether the program was started by itself.
func isChild(args []string) bool {
	return len(args) == 1 && args[0] == verbLoad || len(args) == 2 && args[0] == verbServe
}

// runChild plays a role until its input ends.
func runChild(args []string) error {
	var role child.Role = newLoad()
	if args[0] == verbServe {
		s, err := newServing(args[1])
		if err != nil {
			return err
		}
		role = s
	}
	return child.Serve(role, os.Stdin, os.Stdout)
}
