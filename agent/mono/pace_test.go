// SPDX-License-Identifier: Apache-2.0

package mono

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	type note struct {
		at   time.Duration
		ok   bool
		more int
	}
	for name, tt := range map[string]struct {
		burst int
		notes []note
	}{
		"one": {1, []note{
			{time.Second, true, 0},
			{time.Second + time.Nanosecond, false, 0},
			{11*time.Second - 1, false, 0},
			{11 * time.Second, true, 2},
			{20 * time.Second, false, 0},
			{time.Hour, true, 1},
			{2 * time.Hour, true, 0},
		}},
		"some": {3, []note{
			{time.Second, true, 0},
			{2 * time.Second, true, 0},
			{3 * time.Second, true, 0},
			{4 * time.Second, false, 0},
			{11 * time.Second, true, 1},
			{12 * time.Second, true, 0},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := Pace{Every: 10 * time.Second, Burst: tt.burst}
			for _, n := range tt.notes {
				if more, ok := p.Note(Instant(n.at)); ok != n.ok || more != n.more {
					t.Errorf("at %v: %d, %v: expected %d, %v", n.at, more, ok, n.more, n.ok)
				}
			}
		})
	}
}
