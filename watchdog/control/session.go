// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/netip"
	"time"
)

// Session is one heartbeat session, or a client whose session has ended while the
// agent is not done with it (State is down then, and what belongs to a session is
// zero). Times are milliseconds; what is not known is left out. Numbers of 64 bits are
// strings, since not every reader of JSON has those.
type Session struct {
	Addr      netip.Addr `json:"address"`
	Port      uint16     `json:"port,omitempty"`
	Transport string     `json:"transport,omitempty"` // tcp or udp
	Key       string     `json:"key,omitempty"`       // name of the key that it was proven with
	State     string     `json:"state"`               // init, up, late, suspect, down
	Reason    string     `json:"reason"`              // of the last change of state

	IntervalMS int64   `json:"interval_ms,omitempty"`
	TimeoutMS  int64   `json:"timeout_ms"`
	RTTMS      float64 `json:"rtt_ms,omitempty"`
	HeardMS    *int64  `json:"heard_ago_ms,omitempty"` // the last valid frame
	Received   uint64  `json:"received,omitempty"`     // frames
	Lost       uint64  `json:"lost,omitempty"`         // frames of the conmgr that never came
	Sent       uint64  `json:"sent,omitempty"`
	SentLost   uint64  `json:"sent_lost,omitempty"` // frames to the conmgr that it missed
	Held       bool    `json:"held,omitempty"`      // its verdict was held by the fuse

	Armed       *time.Time `json:"armed,omitempty"`
	Session     uint64     `json:"session,omitempty,string"`
	Generation  uint64     `json:"generation,omitempty"` // armed sessions of this conmgr so far
	Conmgr      string     `json:"conmgr"`               // its lasting identity, hexadecimal
	Incarnation uint64     `json:"incarnation,omitempty,string"`
	Protected   bool       `json:"protected,omitempty"` // by watchdog.protect

	// Relation is what the agent will do about the client: see Clients. Empty for
	// sessions that were never armed or are protected.
	Relation string `json:"relation,omitempty"`
	Case     string `json:"case,omitempty"`      // why the session ended: the row of the policy
	LeftMS   *int64 `json:"left_ms,omitempty"`   // of a wait
	Warrant  uint64 `json:"warrant,omitempty"`   // that is being executed
	SilentMS *int64 `json:"silent_ms,omitempty"` // before the session ended
}
