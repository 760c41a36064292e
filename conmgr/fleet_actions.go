// SPDX-License-Identifier: Apache-2.0

package conmgr

// Actions collects what the fleet wants done. The caller owns it, passes it to
// every call and resets it; the fleet only appends. Carry it out in this order:
// publish the new view, so that nobody is routed to what is lost; then the
// faults; then the rest in any order.
type Actions struct {
	ViewChanged bool         // publish Fleet.View
	Faults      []Fault      // in the order of the verdicts
	AskDoor     []int        // indexes: ask this door now, give the outcome to Fleet.Door
	Eager       []Eager      // pace of the heartbeat's redials
	Learned     uint64       // not 0: keep this system identifier in the directory
	Log         []FleetEntry // to the log, in order
}

// Reset empties the actions and keeps their memory.
func (a *Actions) Reset() {
	*a = Actions{Faults: a.Faults[:0], AskDoor: a.AskDoor[:0], Eager: a.Eager[:0], Log: a.Log[:0]}
}

// Eager changes the pace at which the heartbeat of an instance is dialled.
type Eager struct {
	Index int
	// On: dial every heartbeat_interval, because each dial makes the host's
	// kernel show that it lives. Off: every heartbeat_connect_interval.
	On bool
}

// FleetLevel is how grave a log entry is, with the numbers of log/slog.
type FleetLevel int

// Levels, as log/slog numbers them.
const (
	FleetInfo  FleetLevel = 0
	FleetWarn  FleetLevel = 4
	FleetError FleetLevel = 8
)

// FleetEntry is one line for the log: fixed message, data in Args as alternating
// keys and values (the form that slog.Logger.Log takes).
type FleetEntry struct {
	Level   FleetLevel
	Message string
	Args    []any
}

func (a *Actions) log(level FleetLevel, message string, args ...any) {
	a.Log = append(a.Log, FleetEntry{Level: level, Message: message, Args: args})
}
