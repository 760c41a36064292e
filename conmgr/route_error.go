// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// NoInstanceError says that no instance serves a target at the moment, and what
// each instance is instead.
type NoInstanceError struct {
	Target Target
	View   *View
	Now    mono.Instant // what ages are counted to
}

// Error returns the summary and one line for each instance.
func (e *NoInstanceError) Error() string { return e.Summary() + "\n" + e.Detail() }

// Summary is the error in one line, for the message field.
func (e *NoInstanceError) Summary() string {
	return fmt.Sprintf("no instance serves target_session_attrs %s", e.Target)
}

// Detail has one line for each instance, for the detail field, and one more
// while several primaries cannot be told apart.
func (e *NoInstanceError) Detail() string {
	lines := make([]string, 0, len(e.View.Instances)+1)
	for i := range e.View.Instances {
		lines = append(lines, describeInstance(&e.View.Instances[i], e.Now))
	}
	if e.View.Split != "" {
		lines = append(lines, e.View.Split)
	}
	return strings.Join(lines, "\n")
}

// describeInstance writes "0 db1:5432 primary, faulted 1.2 s ago: timeout".
func describeInstance(in *InstanceView, now mono.Instant) string {
	var b strings.Builder
	b.WriteString(in.Name())
	if in.Instance.Attribute != wire.AttributeUnknown {
		b.WriteString(" " + in.Instance.Attribute.String())
		if in.Instance.ReadOnly {
			b.WriteString(" (read-only by default)")
		}
	}
	b.WriteString(", " + in.Monitoring.String())
	if in.Monitoring == Faulted {
		b.WriteString(" " + ageText(now.Sub(in.Since)) + " ago")
	}
	if in.Routable() && in.Instance.Status != wire.StatusUp {
		b.WriteString(", " + in.Instance.Status.String())
	}
	if in.Why != "" {
		b.WriteString(": " + in.Why)
	}
	return b.String()
}

// ageText writes a duration for people: one decimal below a minute.
func ageText(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	}
	return d.Round(time.Second).String()
}
