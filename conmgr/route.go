// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Balance is load_balance: how equally good instances are ordered.
type Balance uint8

// Values of load_balance.
const (
	BalanceRTT    Balance = iota // shortest heartbeat round trip first, with hysteresis
	BalanceRandom                // by lot, for each connect anew
	BalanceFirst                 // lowest instance number first
)

var balanceNames = [...]string{"rtt", "random", "first"}

// String returns the word of the configuration file.
func (b Balance) String() string {
	if int(b) < len(balanceNames) {
		return balanceNames[b]
	}
	return "invalid"
}

// ParseBalance reads a value of load_balance.
func ParseBalance(s string) (Balance, error) {
	if i := slices.Index(balanceNames[:], s); i >= 0 {
		return Balance(i), nil
	}
	return BalanceRTT, fmt.Errorf("unknown load_balance %q: expected rtt, random or first", s)
}

// An instance takes the lead from the present one when its round trip is
// shorter by more than both of these.
const (
	leadShare = 0.25
	leadTime  = 200 * time.Microsecond
)

// Policy is what a Router goes by.
type Policy struct {
	LoadBalance Balance
	// Random returns a number in [0,n); needed for BalanceRandom. It is called
	// with the router's lock held.
	Random func(n int) int
	// Now gives the ages in a NoInstanceError; nil: as old as the view.
	Now func() mono.Instant
}

// Router orders the instances for a target. It is safe for concurrent use; what
// it remembers is which instance led for each target.
type Router struct {
	policy Policy

	mu sync.Mutex // guards the following
	// lead holds 1 + the index of the instance that led for each target, 0
	// for none.
	lead [len(targetNames)]int
}

// NewRouter returns a router for the policy p.
func NewRouter(p Policy) *Router { return &Router{policy: p} }

// rank is how good a candidate is; lower is better. Weights keep the order of
// the reasons: whether it takes connects at all, then whether the role is the
// preferred one, then how sure conmgr is about it.
type rank uint8

const (
	rankLate         rank = 1 // monitored, silent at the moment
	rankUnmonitored  rank = 2
	rankOtherRole    rank = 4
	rankUnresponsive rank = 8 // only when nobody else serves the target
)

type candidate struct {
	index int
	rank  rank
	rtt   time.Duration
}

// Route returns the indexes of the instances of v that serve t, best first, or
// a [*NoInstanceError]. Never among them: instances never heard of, faulted,
// foreign, down, and primaries that lost the split rule. These are the meanings
// of libpq's target_session_attrs (PostgreSQL, fe-connect.c): read-write is a
// primary whose sessions may write by default, read-only everything else.
func (r *Router) Route(v *View, t Target) ([]int, error) {
	found := make([]candidate, 0, len(v.Instances))
	for i := range v.Instances {
		if in := &v.Instances[i]; serves(in, t) {
			found = append(found, candidate{i, rankOf(in, t), in.RTT})
		}
	}
	if len(found) == 0 {
		return nil, r.noInstance(v, t)
	}
	r.order(found, v, t)
	indexes := make([]int, len(found))
	for i, c := range found {
		indexes[i] = c.index
	}
	return indexes, nil
}

// serves reports whether a connect for t may go to the instance.
func serves(in *InstanceView, t Target) bool {
	s := &in.Instance
	if !in.Routable() || s.Status == wire.StatusDown {
		return false
	}
	switch t {
	case Any, PreferStandby:
		return true
	case Primary:
		return s.Attribute == wire.AttributePrimary
	case Standby:
		return s.Attribute == wire.AttributeStandby
	case ReadWrite:
		return s.Attribute == wire.AttributePrimary && !s.ReadOnly
	case ReadOnly:
		return s.Attribute == wire.AttributeStandby || s.Attribute == wire.AttributePrimary && s.ReadOnly
	}
	return false
}

func rankOf(in *InstanceView, t Target) rank {
	var r rank
	if in.Instance.Status == wire.StatusUnresponsive {
		r += rankUnresponsive
	}
	if t == PreferStandby && in.Instance.Attribute != wire.AttributeStandby {
		r += rankOtherRole
	}
	switch {
	case in.Monitoring == Unmonitored:
		r += rankUnmonitored
	case in.Heartbeat != wire.StateUp:
		r += rankLate
	}
	return r
}

// order sorts the candidates, the best first. They come in the order of their
// numbers.
func (r *Router) order(found []candidate, v *View, t Target) {
	if r.policy.LoadBalance == BalanceRandom {
		r.shuffle(found)
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		if c := cmp.Compare(a.rank, b.rank); c != 0 || r.policy.LoadBalance != BalanceRTT {
			return c
		}
		return cmp.Compare(knownRTT(a), knownRTT(b))
	})
	if r.policy.LoadBalance == BalanceRTT {
		r.keepLead(found, v, t)
	}
}

// knownRTT takes an unknown round trip for the longest of all.
func knownRTT(c candidate) time.Duration {
	if c.rtt <= 0 {
		return time.Duration(mono.Never)
	}
	return c.rtt
}

func (r *Router) shuffle(found []candidate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(found) - 1; i > 0; i-- {
		j := r.policy.Random(i + 1)
		found[i], found[j] = found[j], found[i]
	}
}

// keepLead puts the instance that led so far before the shortest round trip,
// unless that one is clearly better. A leader that is late at the moment gives
// way without losing the lead: else each lost packet would move the load.
func (r *Router) keepLead(found []candidate, v *View, t Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	leader := r.lead[t] - 1
	at := slices.IndexFunc(found, func(c candidate) bool { return c.index == leader })
	if at > 0 && found[at].rank == found[0].rank && !clearlyBetter(found[0], found[at]) {
		c := found[at]
		copy(found[1:at+1], found[:at])
		found[0] = c
	}
	if at < 0 || !lateOnly(&v.Instances[leader], found[0].rank, found[at].rank) {
		r.lead[t] = found[0].index + 1
	}
}

// lateOnly reports whether the leader is behind for nothing but its lateness.
func lateOnly(leader *InstanceView, best, its rank) bool {
	return leader.Monitoring == Monitored && its == best+rankLate
}

func clearlyBetter(a, b candidate) bool {
	gain := knownRTT(b) - knownRTT(a)
	return gain > leadTime && float64(gain) > leadShare*float64(knownRTT(b))
}

func (r *Router) noInstance(v *View, t Target) error {
	now := v.At
	if r.policy.Now != nil {
		now = r.policy.Now()
	}
	return &NoInstanceError{Target: t, View: v, Now: now}
}
