// SPDX-License-Identifier: Apache-2.0

package tally

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	h := New(ms, 10*ms, 100*ms)
	if diff := cmp.Diff(Counts{Bounds: h.bounds, Within: []uint64{0, 0, 0}}, h.Counts()); diff != "" {
		t.Errorf("nothing counted (-want +got):\n%s", diff)
	}
	for _, d := range []time.Duration{0, ms, ms + 1, 10 * ms, 50 * ms, 100*ms + 1, time.Hour} {
		h.Observe(d)
	}
	want := Counts{Bounds: h.bounds, Within: []uint64{2, 4, 5}, Count: 7, Sum: time.Hour + 162*ms + 2}
	if diff := cmp.Diff(want, h.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What several count at the same time is all there.
func TestHistogramConcurrent(t *testing.T) {
	t.Parallel()
	h := New(time.Second)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				h.Observe(time.Millisecond)
				h.Counts()
			}
		})
	}
	all.Wait()
	if c := h.Counts(); c.Count != 8000 || c.Within[0] != 8000 || c.Sum != 8*time.Second {
		t.Errorf("%+v", c)
	}
}
