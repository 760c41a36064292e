// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

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
