// SPDX-License-Identifier: Apache-2.0

package control

import "time"

// Status is the agent as a whole. What is not known yet is empty or zero.
type Status struct {
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	StateDir string    `json:"state_dir"`

	// Kills says whether sessions of lost clients are terminated: enabled, paused or
	// dry run.
	Kills string `json:"kills"`
	Pause *Pause `json:"pause,omitempty"` // while kills are paused

	Instance    Instance    `json:"instance"`
	Sessions    Sessions    `json:"sessions"`
	Clients     Clients     `json:"clients"`
	Links       Links       `json:"links"`
	Database    Database    `json:"database"`
	Sockets     Sockets     `json:"sockets"`
	Descriptors Descriptors `json:"descriptors"`
	Fuse        Fuse        `json:"fuse"`
	Stalls      uint64      `json:"stalls"` // how often the agent itself stood still
	// Warning is what went wrong with a request that was carried out all the same.
	Warning string `json:"warning,omitempty"`
}

// Pause is a pause of kills.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	LeftMS int64     `json:"left_ms"` // until its end, by a clock that does not step
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
}

// Instance is the instance as the agent sees it. While its status is unknown,
// conmgrs call it unmonitored.
type Instance struct {
	Status    string `json:"status"` // up, down, unresponsive, unknown
	Attribute string `json:"attribute"`
	Timeline  uint32 `json:"timeline,omitempty"`
	Port      uint16 `json:"port,omitempty"`
}

// Sessions counts heartbeat sessions by their state.
type Sessions struct {
	Init    int  `json:"init"`
	Up      int  `json:"up"`
	Late    int  `json:"late"`
	Suspect int  `json:"suspect"`
	Limit   int  `json:"limit"` // watchdog.max_heartbeat_connections
	Keyed   bool `json:"keyed"` // a key is required
}

// Clients counts what the agent knows of client hosts by how they stand: their
// session is armed; it ended, and the client may come back (waiting), is spared,
// would be terminated but for a pause (suspended), or is being terminated (warranted).
type Clients struct {
	Armed     int `json:"armed"`
	Waiting   int `json:"waiting"`
	Spared    int `json:"spared"`
	Suspended int `json:"suspended"`
	Warranted int `json:"warranted"`
}

// Links is who tells the agent of lost links.
type Links struct {
	Enabled bool   `json:"enabled"` // watchdog.link_hints
	Source  string `json:"source"`  // fentry, kprobe, counter, rtnetlink, none
	// Missing are the better sources that do not work, best first.
	Missing []MissingSource `json:"missing,omitempty"`
}

// MissingSource says why a source of link events is not used.
type MissingSource struct {
	Source string `json:"source"`
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"` // what can be done
}

// Database is whether the agent can act in the instance.
type Database struct {
	Monitor    bool     `json:"monitor"`    // the last check of the instance was answered
	Terminator bool     `json:"terminator"` // the connection that ends sessions is there
	Role       string   `json:"role,omitempty"`
	Missing    []string `json:"missing,omitempty"` // rights of the role, each as a sentence
}

// Sockets is whether the agent can destroy sockets.
type Sockets struct {
	Proven bool   `json:"proven"`          // it was tried
	Error  string `json:"error,omitempty"` // why it cannot
}

// Descriptors are the agent's open files.
type Descriptors struct {
	Open  int    `json:"open"`
	Limit uint64 `json:"limit"`
	Need  uint64 `json:"need"` // as configured
}

// Fuse is what became of verdicts that would have ended too many at once.
type Fuse struct {
	Blown uint64    `json:"blown"` // how often
	Last  time.Time `json:"last,omitzero"`
	Held  int       `json:"held"` // sessions whose verdict is held now
}
