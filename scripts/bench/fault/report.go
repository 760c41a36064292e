// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// reach is what the last application is to wait at most behind the verdict.
const reach = 50.0

// report is all that was measured. Times are milliseconds behind the verdict that
// was due.
type report struct {
	Applications int      `json:"applications"`
	Others       int      `json:"others"`
	TimeoutMS    float64  `json:"timeout_ms"`
	Rounds       []*round `json:"rounds"`
	LastMS       summary  `json:"last_ms"` // over the rounds
	Disturbed    int      `json:"others_disturbed"`
	machine.Facts
}

// round is one fault.
type round struct {
	Told         int                `json:"told"`
	FirstMS      float64            `json:"first_ms"`
	MedianMS     float64            `json:"median_ms"`
	P99MS        float64            `json:"p99_ms"`
	LastMS       float64            `json:"last_ms"`
	LastByKindMS map[string]float64 `json:"last_by_kind_ms"`
	CPUMS        float64            `json:"conmgr_cpu_ms"`    // from the cut to the last error
	Disturbed    int                `json:"others_disturbed"` // since the beginning
}

// summary is over the rounds.
type summary struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

func newReport(ctx context.Context, b *bench) report {
	return report{
		Applications: b.n, Others: b.others, TimeoutMS: millis(timeout),
		Rounds: []*round{}, Facts: machine.Look(ctx),
	}
}

func (r *report) add(one *round) {
	r.Rounds = append(r.Rounds, one)
	r.Disturbed = one.Disturbed
	var last []float64
	for _, each := range r.Rounds {
		last = append(last, each.LastMS)
	}
	slices.Sort(last)
	r.LastMS = summary{Min: last[0], Median: last[len(last)/2], Max: last[len(last)-1]}
}

// verdict is an error when an application was not told or one too many was.
func (r *report) verdict() error {
	var errs []error
	for i, one := range r.Rounds {
		if one.Told != r.Applications {
			errs = append(errs, fmt.Errorf("round %d: %d of %d applications got their error", i+1, one.Told, r.Applications))
		}
		if one.FirstMS < 0 {
			errs = append(errs, fmt.Errorf("round %d: an application got its error %.1f ms before the verdict was due", i+1, -one.FirstMS))
		}
	}
	if r.Disturbed > 0 {
		errs = append(errs, fmt.Errorf("%d applications of the other instance were disturbed", r.Disturbed))
	}
	return errors.Join(errs...)
}

func millis(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }

// print writes a table for people and one line for programs.
func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "%d applications of the instance that is lost, %d of another; milliseconds from the verdict\n"+
		"(last frame as the kernel received it + %.0f ms) to the errors of applications. %d cores, load %s before.\n\n",
		r.Applications, r.Others, r.TimeoutMS, r.Cores, r.Load)
	fmt.Fprintf(out, "%5s %6s %8s %8s %8s %8s", "round", "told", "first", "median", "p99", "last")
	for _, k := range kinds {
		fmt.Fprintf(out, " %13s", k)
	}
	fmt.Fprintln(out, "   conmgr's processor time")
	for i, one := range r.Rounds {
		fmt.Fprintf(out, "%5d %6d %8.2f %8.2f %8.2f %8.2f", i+1, one.Told, one.FirstMS, one.MedianMS, one.P99MS, one.LastMS)
		for _, k := range kinds {
			fmt.Fprintf(out, " %13.2f", one.LastByKindMS[k])
		}
		fmt.Fprintf(out, " %8.2f", one.CPUMS)
		if one.LastMS > reach {
			fmt.Fprintf(out, "  beyond %.0f ms", reach)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "\nlast error: median %.2f ms, at most %.2f ms; others disturbed: %d\n\n", r.LastMS.Median, r.LastMS.Max, r.Disturbed)
	return json.NewEncoder(out).Encode(r)
}
