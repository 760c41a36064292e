// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"time"
)

// progress prints what is waited for and a dot per interval, as pg_ctl does.
type progress struct {
	w    io.Writer
	dot  time.Duration
	next time.Time
}

func newProgress(e env, what string) *progress {
	fmt.Fprintf(e.stdout, "waiting for %s...", what)
	return &progress{w: e.stdout, dot: e.dot, next: time.Now().Add(e.dot)}
}

func (p *progress) tick() {
	if now := time.Now(); !now.Before(p.next) {
		fmt.Fprint(p.w, ".")
		p.next = now.Add(p.dot)
	}
}

func (p *progress) done()    { fmt.Fprintln(p.w, " done") }
func (p *progress) stopped() { fmt.Fprintln(p.w, " stopped waiting") }

// waitFor calls look until it says that it is over (true) or the time is up
// (false).
func waitFor(e env, p *progress, limit time.Duration, look func() bool) bool {
	deadline := time.Now().Add(limit)
	ticker := time.NewTicker(e.poll)
	defer ticker.Stop()
	for {
		if look() {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		<-ticker.C
		p.tick()
	}
}
