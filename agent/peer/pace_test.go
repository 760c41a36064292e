// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	for _, tt := range []struct {
		at   time.Duration
		ok   bool
		more int
	}{
		{time.Second, true, 0},
		{time.Second + time.Nanosecond, false, 0},
		{11*time.Second - 1, false, 0},
		{11 * time.Second, true, 2},
		{20 * time.Second, false, 0},
		{time.Hour, true, 1},
		{2 * time.Hour, true, 0},
	} {
		if more, ok := p.note(mono.Instant(tt.at)); ok != tt.ok || more != tt.more {
			t.Errorf("at %v: %d, %v: expected %d, %v", tt.at, more, ok, tt.more, tt.ok)
		}
	}
}

// A peer chooses its timeout, and by a short one the lateness that is noticed.
func TestLatenessIsNotToldPerPass(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	l, err := NewLoop(slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	l.least = time.Millisecond
	for i := range 100 {
		now := mono.Instant(time.Hour + time.Duration(i)*10*time.Millisecond)
		l.due = now.Add(-5 * time.Millisecond)
		l.noteLateness(now)
	}
	if n := bytes.Count(text.Bytes(), []byte("\n")); n != 1 {
		t.Errorf("%d lines for 100 late passes within a second: expected 1\n%s", n, text.String())
	}
}
