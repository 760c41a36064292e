// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Monitoring is what conmgr knows about an instance.
type Monitoring uint8

// What conmgr can know. Only Monitored and Unmonitored instances are offered.
const (
	Unknown     Monitoring = iota // never heard of since start
	Monitored                     // armed heartbeat
	Unmonitored                   // the agent is silent or stopped, the instance's door answers
	Faulted                       // gone: its applications were told
	Foreign                       // wrong system identifier or wrong port: never routed to
)

// String returns the word that SHOW INSTANCES prints.
func (m Monitoring) String() string {
	names := [...]string{"unknown", "monitored", "unmonitored", "faulted", "foreign"}
	if int(m) < len(names) {
		return names[m]
	}
	return "invalid"
}

// InstanceView is one instance as conmgr sees it now. It is a value: a reader
// may keep it.
type InstanceView struct {
	Number       int        // the N of backend_hostN
	Host         string     // backend_hostN, empty when only the address is configured
	HostAddr     string     // backend_hostaddrN, empty when only the name is configured
	Addr         netip.Addr // the very address the heartbeat uses; invalid while unresolved
	Port         uint16     // backend_portN
	WatchdogPort uint16     // watchdog_portN
	Monitoring   Monitoring
	Heartbeat    wire.State    // of the session
	Reason       wire.Reason   // of its last change
	Instance     wire.Instance // as last heard; keep in mind Monitoring
	RTT          time.Duration // of the heartbeat, smoothed
	Heard        mono.Instant  // last valid frame, zero for never
	Lost         uint64        // heartbeat frames that never came
	Received     uint64        // heartbeat frames that came
	Loser        bool          // lost the split rule: a primary that must not be used
	Why          string        // one sentence for people: why it is as it is; may be empty
	Since        mono.Instant  // when Monitoring became what it is
}

// Name is how logs and errors call the instance: number, host and port.
func (v *InstanceView) Name() string { return strconv.Itoa(v.Number) + " " + v.HostPort() }

// HostPort is the instance as it is configured: host and port.
func (v *InstanceView) HostPort() string {
	host := v.Host
	if host == "" {
		host = v.HostAddr
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(v.Port))
}

// Kills says whether the instance's agent terminates the sessions of lost clients:
// enabled, paused (agentctl pause) or dry run; empty while it has not said so.
func (v *InstanceView) Kills() string {
	switch i := &v.Instance; {
	case i.DryRun:
		return "dry run"
	case i.Paused:
		return "paused"
	case i.Status == wire.StatusUnknown:
		return ""
	}
	return "enabled"
}

// Routable reports whether new connects may go to the instance at all: it is
// monitored, or unmonitored with an answering door, and did not lose the split
// rule.
func (v *InstanceView) Routable() bool {
	return (v.Monitoring == Monitored || v.Monitoring == Unmonitored) && !v.Loser
}

// View is an immutable picture of all instances, in the order of their numbers.
// A new one replaces it with every change.
type View struct {
	At        mono.Instant
	Instances []InstanceView
	Split     string // not empty while two primaries cannot be told apart: names both
}

// Fault tells the applications of one instance that it is lost to them.
type Fault struct {
	Index   int           // into View.Instances
	Reason  string        // one or two words: timeout, down, restart, role change, ...
	Silence time.Duration // since the last valid frame, 0 when that says nothing
	At      mono.Instant  // of the verdict
	// Only limits the fault to applications that asked for one of these
	// targets; nil means all of the instance.
	Only []Target
	// Before limits the fault to applications bound before this instant; zero
	// means all. A postmaster that was restarted while its agent was away has
	// healthy sessions of its new life, which must live on.
	Before mono.Instant
}
