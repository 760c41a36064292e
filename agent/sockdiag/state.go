// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"fmt"
	"strings"
)

// State is a TCP state, numbered as in the kernel (include/net/tcp_states.h).
type State uint8

// TCP states.
const (
	Established State = iota + 1
	SynSent
	SynRecv // a request socket of a listener, too
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv    // inside the kernel; dumps say SynRecv
	BoundInactive // bound, neither listening nor connected (Linux 6.8)
)

var stateNames = [...]string{
	"UNKNOWN", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
	"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
}

// String returns the kernel's name without TCP_.
func (s State) String() string {
	if s == 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("STATE(%d)", uint8(s))
	}
	return stateNames[s]
}

// States is a set of states.
type States uint32

// Sets of states.
const (
	// Killable are the states that [Conn.Destroy] accepts.
	Killable = States(1<<Established | 1<<CloseWait)
	// AllStates are those that every kernel's dump understands.
	AllStates = States(1<<(Closing+1) - 1<<Established)
)

// StatesOf returns the set of the given states.
func StatesOf(states ...State) States {
	var set States
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether s is in the set.
func (set States) Has(s State) bool { return set&(1<<s) != 0 }

// String returns the names, separated by commas.
func (set States) String() string {
	var names []string
	for s := State(0); s < 32; s++ {
		if set.Has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, ",")
}
