// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a reader of stderr that takes the first message and stands still
// until it is let go.
type stuck struct {
	free chan struct{}

	mu  sync.Mutex // guards the following
	out bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *stuck) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func TestQueueKeepsOrder(t *testing.T) {
	t.Parallel()
	var out, want bytes.Buffer
	q := NewQueue(&out)
	line := make([]byte, 0, 16)
	for i := range 1000 {
		line = fmt.Appendf(line[:0], "line %d\n", i) // reused, as handlers do
		if n, err := q.Write(line); n != len(line) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		want.Write(line)
	}
	q.Close()
	if out.String() != want.String() {
		t.Errorf("wrote %d bytes, want %d", out.Len(), want.Len())
	}
}

// A message never waits for a reader that is stuck, memory is bounded, and the
// loss is told in the log's own form when the reader goes on.
func TestQueueStuckReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{free: make(chan struct{})}
		q := NewQueue(s)
		log := mustLogger(t, LogOptions{Stderr: q, Format: FormatJSON})
		start := time.Now()
		text := strings.Repeat("x", 1000)
		for range 2 * queueBytes / len(text) {
			log.Info(text)
		}
		synctest.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("logging waited %v for the reader", took)
		}
		q.mu.Lock()
		if q.bytes > queueBytes || q.lost == 0 {
			t.Errorf("%d bytes wait, %d messages lost", q.bytes, q.lost)
		}
		q.mu.Unlock()
		close(s.free)
		synctest.Wait()
		q.Close()
		got := strings.Split(strings.TrimSpace(s.text()), "\n")
		want := `"level":"WARN","msg":"log messages lost: they were not taken from stderr in time","lost":`
		if last := got[len(got)-1]; !strings.Contains(last, want) || strings.Count(s.text(), want) != 1 {
			t.Errorf("last line %s, want %s, once", last, want)
		}
	})
}

func TestQueueCloseDoesNotHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read, write := io.Pipe()
		q := NewQueue(write)
		_, _ = q.Write([]byte("nobody reads this\n"))
		start := time.Now()
		q.Close()
		if took := time.Since(start); took != queueClose {
			t.Errorf("Close took %v, want %v", took, queueClose)
		}
		_ = read.Close()
	})
}
