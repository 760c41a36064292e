// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// report is all that was measured.
type report struct {
	Rows []*row     `json:"rows"`
	Idle []idleCost `json:"idle,omitempty"`
	machine.Facts
}

// row is one fact in one trial.
type row struct {
	Case          string   `json:"case"`
	TimeoutMS     float64  `json:"timeout_ms"`
	N             int      `json:"n"`
	LateMS        *summary `json:"late_ms,omitempty"`      // behind last frame + timeout
	AfterCutMS    *summary `json:"after_cut_ms,omitempty"` // behind the beginning of the cut
	FalseVerdicts int      `json:"false_verdicts"`

	late, afterCut []time.Duration
	limit          float64 // of the median, in milliseconds; 0: see bound
}

// summary is the distribution of some durations, in milliseconds.
type summary struct {
	Min float64 `json:"min"`
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func newReport(ctx context.Context) report {
	return report{Rows: []*row{}, Facts: machine.Look(ctx)}
}

func (r *report) add(name string, timeout time.Duration) *row {
	added := &row{Case: name, TimeoutMS: timeout.Seconds() * 1000}
	r.Rows = append(r.Rows, added)
	return added
}

func (r *report) falseVerdicts() (n int) {
	for _, row := range r.Rows {
		n += row.FalseVerdicts
	}
	return n
}

// bound is how late a verdict may be.
func (r *row) bound() float64 { return max(5, 0.02*r.TimeoutMS) }

// longestCut is the longest time after a cut, 0 where nothing was cut.
func (r *row) longestCut() float64 {
	if r.AfterCutMS == nil {
		return 0
	}
	return r.AfterCutMS.Max
}

func (r *row) summarize() {
	r.N = len(r.late)
	r.LateMS, r.AfterCutMS = summarize(r.late), summarize(r.afterCut)
}

func summarize(all []time.Duration) *summary {
	if len(all) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(all))
	return &summary{
		Min: millis(sorted[0]), P50: millis(percentile(sorted, 50)),
		P99: millis(percentile(sorted, 99)), Max: millis(sorted[len(sorted)-1]),
	}
}

// percentile is the smallest value that at least p percent of the values do not
// exceed (nearest rank).
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

func millis(d time.Duration) float64 { return round(d.Seconds() * 1000) }

// round keeps two digits behind the point.
func round(v float64) float64 { return math.Round(v*100) / 100 }

// print writes a table for people and one line for programs.
func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "Milliseconds later than the last frame (the kernel's time of its packet, so reading it is included)\n"+
		"plus the timeout; \"cut\" is the longest time after the cut began; \"SIGTERM alone\" is PostgreSQL's own\n"+
		"share of the two rows of the server, \"machine's share\" what a thread that only sleeps sees. %d cores, load %s before.\n\n", r.Cores, r.Load)
	fmt.Fprintf(out, "%-80s %5s %8s %8s %8s %8s %8s %6s\n", "", "n", "min", "median", "p99", "max", "cut", "false")
	for _, row := range r.Rows {
		row.summarize()
		if row.LateMS == nil {
			fmt.Fprintf(out, "%-80s %5d %8s %8s %8s %8s %8s %6d\n", row.Case, 0, "", "", "", "", "", row.FalseVerdicts)
			continue
		}
		l, mark := row.LateMS, ""
		switch {
		case row.limit > 0 && l.P50 > row.limit:
			mark = fmt.Sprintf("  median beyond %.1f ms", row.limit)
		case row.limit == 0 && l.P99 > row.bound():
			mark = fmt.Sprintf("  p99 beyond %.1f ms", row.bound())
		}
		fmt.Fprintf(out, "%-80s %5d %8.2f %8.2f %8.2f %8.2f %8.1f %6d%s\n",
			row.Case, row.N, l.Min, l.P50, l.P99, l.Max, row.longestCut(), row.FalseVerdicts, mark)
	}
	for _, c := range r.Idle {
		transport := "TCP"
		if c.UDP {
			transport = "UDP"
		}
		fmt.Fprintf(out, "%-11s idle at %.0f ms x 3, %s, for %.0f s: %.2f %% of a core, %.1f wake-ups/s, %d log lines, %d descriptors, %d KiB\n",
			c.Daemon, c.HeartbeatsMS, transport, c.Seconds, c.CPUPercent, c.WakeupsPerS, c.LogLines, c.Descriptors, c.ResidentKiB)
	}
	fmt.Fprintln(out)
	return json.NewEncoder(out).Encode(r)
}
