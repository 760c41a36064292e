// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"net/netip"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Action is what a policy parameter says about an ended session.
type Action uint8

// Actions, in the words of postgresql.conf.
const (
	Terminate Action = iota // end the client's database sessions now
	Wait                    // one more timeout for the same conmgr, then terminate
	Ignore                  // end nobody
)

// SharedAddress is watchdog.shared_address: what happens to an address while
// another armed session from it is alive.
type SharedAddress uint8

// Values of watchdog.shared_address.
const (
	Spare           SharedAddress = iota // the host lives: end nobody
	TerminateShared                      // end all of the address regardless
)

// Replication is watchdog.terminate_replication: whether walsenders of a
// warranted address are ended too.
type Replication uint8

// Values of watchdog.terminate_replication.
const (
	ReplicationAuto Replication = iota // with a silent host yes, with a live one no
	ReplicationOn
	ReplicationOff
)

// Case is the row of the policy table that a warrant falls under.
type Case uint8

// Cases.
const (
	CaseTimeout    Case = iota // silence, or a lost link: watchdog.on_timeout
	CaseHang                   // the host answers, its conmgr does not: watchdog.on_hang
	CaseDisconnect             // broken without BYE, or the peer gave up: watchdog.on_disconnect
	CaseShutdown               // BYE: watchdog.on_shutdown
	CaseRestored               // not back since the agent's restart: watchdog.on_timeout
)

var (
	actionNames      = []string{"terminate", "wait", "ignore"}
	sharedNames      = []string{"spare", "terminate"}
	replicationNames = []string{"auto", "on", "off"}
	caseNames        = []string{"timeout", "hang", "disconnect", "shutdown", "restored"}
)

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}

func valueOf[T ~uint8](names []string, text []byte) (T, error) {
	for i, name := range names {
		if name == string(text) {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("%q: expected one of %q", text, names)
}

// String returns the action as it stands in postgresql.conf.
func (a Action) String() string { return nameOf(actionNames, int(a)) }

// UnmarshalText accepts terminate, wait and ignore.
func (a *Action) UnmarshalText(text []byte) (err error) {
	*a, err = valueOf[Action](actionNames, text)
	return err
}

// String returns the value as it stands in postgresql.conf.
func (s SharedAddress) String() string { return nameOf(sharedNames, int(s)) }

// UnmarshalText accepts spare and terminate.
func (s *SharedAddress) UnmarshalText(text []byte) (err error) {
	*s, err = valueOf[SharedAddress](sharedNames, text)
	return err
}

// String returns the value as it stands in postgresql.conf.
func (r Replication) String() string { return nameOf(replicationNames, int(r)) }

// UnmarshalText accepts auto, on and off.
func (r *Replication) UnmarshalText(text []byte) (err error) {
	*r, err = valueOf[Replication](replicationNames, text)
	return err
}

// String returns the case as it stands in logs and events.
func (c Case) String() string { return nameOf(caseNames, int(c)) }

// HostAlive reports whether the case itself is evidence that the client's host
// lives: it said BYE, answered, or its kernel closed the connection.
func (c Case) HostAlive() bool {
	return c == CaseHang || c == CaseDisconnect || c == CaseShutdown
}

// PolicyConfig is the policy of a [Docket]. The zero value terminates in every
// case, which is not the default: see [DefaultPolicy].
type PolicyConfig struct {
	OnTimeout, OnHang, OnDisconnect, OnShutdown Action
	SharedAddress                               SharedAddress
	DryRun                                      bool // warrants are executed but for the kill
	TerminateReplication                        Replication
	// Protected reports whether an address is in watchdog.protect. It is asked
	// again before every warrant, because the list can change by a reload. nil
	// protects nobody. It must be pure.
	Protected func(netip.Addr) bool
}

// DefaultPolicy returns the policy of an untouched postgresql.conf.
func DefaultPolicy() PolicyConfig {
	return PolicyConfig{
		OnTimeout: Terminate, OnHang: Wait, OnDisconnect: Wait, OnShutdown: Terminate,
	}
}

// action returns what the policy says about a case.
func (p *PolicyConfig) action(c Case) Action {
	switch c {
	case CaseHang:
		return p.OnHang
	case CaseDisconnect:
		return p.OnDisconnect
	case CaseShutdown:
		return p.OnShutdown
	}
	return p.OnTimeout
}

func (p *PolicyConfig) replication(hostAlive bool) bool {
	switch p.TerminateReplication {
	case ReplicationOn:
		return true
	case ReplicationOff:
		return false
	}
	return !hostAlive
}

func (p *PolicyConfig) protects(a netip.Addr) bool {
	return p.Protected != nil && p.Protected(a)
}

// caseOf returns the row that an ended session falls under. A reason that a
// watchdog's own machine cannot give counts as a disconnect, the gentler row.
func caseOf(r wire.Reason) Case {
	switch r {
	case wire.ReasonTimeout, wire.ReasonLinkDown, wire.ReasonReplaced:
		return CaseTimeout
	case wire.ReasonStop, wire.ReasonShutdown, wire.ReasonRestart, wire.ReasonLeave:
		return CaseShutdown
	}
	return CaseDisconnect
}

// verdictOf returns what the policy says about the end of a session.
func (p *PolicyConfig) verdictOf(r wire.Reason, ownPause bool) Action {
	if r == wire.ReasonLeave {
		return Ignore
	}
	a := p.action(caseOf(r))
	if a == Terminate && (ownPause || r == wire.ReasonRestart || r == wire.ReasonReplaced) {
		return Wait
	}
	return a
}
