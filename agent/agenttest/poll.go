// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// Pause returns how long to wait until the next look when the looks began so long
// ago: a fact that is soon there is seen to the millisecond, and waiting for one
// that is not, or for none to come, leaves the processor to others.
func Pause(since time.Duration) time.Duration {
	const (
		least = 2 * time.Millisecond
		most  = 20 * time.Millisecond
		exact = 500 * time.Millisecond
	)
	if since < exact {
		return least
	}
	return most
}

// poll looks until the fact is there, an error comes, or the limit passes.
func poll(ctx context.Context, limit time.Duration, what string, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	for {
		if is, err := look(); is || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(Pause(time.Since(start))):
		}
	}
}

// Eventually looks every few milliseconds until is returns true, and fails
// the test when that has not happened within the limit. The limit is for a
// machine in trouble: be generous, a passing test does not wait for it.
func Eventually(t testing.TB, limit time.Duration, what string, is func() bool) {
	t.Helper()
	start := time.Now()
	err := poll(t.Context(), limit, what, func() (bool, error) { return is(), nil })
	if err != nil {
		t.Fatalf("%s: not within %v (waited %v)", what, limit, time.Since(start).Round(time.Millisecond))
	}
}

// Never looks every few milliseconds for the whole time and fails the test as
// soon as is returns true.
func Never(t testing.TB, during time.Duration, what string, is func() bool) {
	t.Helper()
	start := time.Now()
	err := poll(t.Context(), during, what, func() (bool, error) { return is(), nil })
	if err == nil {
		t.Fatalf("%s: happened after %v", what, time.Since(start).Round(time.Millisecond))
	}
}
