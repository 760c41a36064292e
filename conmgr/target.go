// SPDX-License-Identifier: Apache-2.0

package conmgr

import "fmt"

// Target is what an application asks for with target_session_attrs.
type Target uint8

// The targets of libpq (fe-connect.c, target_session_attrs).
const (
	Any Target = iota
	ReadWrite
	ReadOnly
	Primary
	Standby
	PreferStandby
)

var targetNames = [...]string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}

// String returns libpq's spelling.
func (t Target) String() string {
	if int(t) < len(targetNames) {
		return targetNames[t]
	}
	return "invalid"
}

// ParseTarget reads libpq's spelling, and prefer-read, the older one of
// prefer-standby.
func ParseTarget(s string) (Target, error) {
	if s == "prefer-read" {
		return PreferStandby, nil
	}
	for i, name := range targetNames {
		if s == name {
			return Target(i), nil
		}
	}
	return Any, fmt.Errorf("unknown target %q: expected any, read-write, read-only, primary, standby or prefer-standby", s)
}
