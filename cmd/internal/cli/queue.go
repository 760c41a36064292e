// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"slices"
	"sync"
	"time"
)

const (
	queueBytes = 1 << 20         // of messages that wait to be written
	queueClose = 2 * time.Second // how long Close waits for a reader that is stuck
)

// Queue writes messages on a goroutine of its own, so that a reader of stderr
// that stands still (a full pipe, a stopped terminal) never stops the program:
// one that waits for its log misses its deadlines, and its peers take it for
// dead. What does not fit into a mebibyte is dropped, counted, and told when
// there is room again. It is safe for concurrent use.
type Queue struct {
	w    io.Writer
	wake chan struct{} // holds one token while there is something to write
	done chan struct{}

	mu     sync.Mutex // guards the following
	lines  [][]byte
	bytes  int
	lost   int
	tell   func(lost int) // nil: nobody wants to know
	closed bool
}

// NewQueue returns a queue in front of w. Close it before the program ends.
func NewQueue(w io.Writer) *Queue {
	q := &Queue{w: w, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one message, which is written as a whole. It never waits and never
// fails; after Close the message goes nowhere.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+len(line) > queueBytes {
		q.lost++
		return len(line), nil
	}
	q.lines = append(q.lines, slices.Clone(line))
	q.bytes += len(line)
	q.kick()
	return len(line), nil
}

func (q *Queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close writes what waits and returns, after two seconds at the latest.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.kick()
	q.mu.Unlock()
	limit := time.NewTimer(queueClose)
	defer limit.Stop()
	select {
	case <-q.done:
	case <-limit.C:
	}
}

// onLoss sets what is called with the number of lost messages.
func (q *Queue) onLoss(tell func(lost int)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.tell = tell
}

func (q *Queue) run() {
	defer close(q.done)
	for {
		<-q.wake
		for {
			lines, closed := q.take()
			for _, line := range lines {
				_, _ = q.w.Write(line)
			}
			if closed {
				return
			}
			if len(lines) == 0 {
				break
			}
		}
	}
}

// take returns what waits, and tells about losses: there is room now.
func (q *Queue) take() (lines [][]byte, closed bool) {
	q.mu.Lock()
	lines, lost, tell := q.lines, q.lost, q.tell
	q.lines, q.bytes = nil, 0
	closed = q.closed
	if tell != nil && !closed {
		q.lost = 0
	}
	q.mu.Unlock()
	if lost > 0 && tell != nil && !closed {
		tell(lost)
	}
	return lines, closed
}
