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
	Rows []*row `json:"rows"`
	machine.Facts
}

// row is one trial.
type row struct {
	Transport       string   `json:"transport"`
	Sessions        int      `json:"sessions"`
	Addresses       int      `json:"addresses"`
	IntervalMS      float64  `json:"interval_ms"`
	CPUPercent      float64  `json:"cpu_percent"` // of one core
	BytesPerSession float64  `json:"bytes_per_session"`
	ResidentKiB     int      `json:"resident_kib"`
	Beats           int      `json:"beats"` // that lateness was measured of
	LateMS          *summary `json:"late_ms"`
	FalseVerdicts   int      `json:"false_verdicts"`
}

// summary is the distribution of lateness, in milliseconds.
type summary struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func newReport(ctx context.Context) report { return report{Rows: []*row{}, Facts: machine.Look(ctx)} }

func summarize(all []time.Duration) *summary {
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	at := func(percent int) float64 { return millis(all[min(len(all)*percent/100, len(all)-1)]) }
	return &summary{P50: at(50), P99: at(99), Max: at(100)}
}

func millis(d time.Duration) float64 { return round(d.Seconds() * 1000) }

// round keeps two digits behind the point.
func round(v float64) float64 { return math.Round(v*100) / 100 }

// verdict is an error when sessions ended.
func (r *report) verdict() error {
	for _, row := range r.Rows {
		if row.FalseVerdicts > 0 {
			return fmt.Errorf("%s, %d sessions: %d ended", row.Transport, row.Sessions, row.FalseVerdicts)
		}
	}
	return nil
}

// print writes a table for people and one line for programs.
func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "One pgwatchdog on one of %d processors; sessions of %v x %d with a key.\n\n", r.Cores, interval, timeout/interval)
	fmt.Fprintf(out, "%-9s %9s %9s %10s %14s %12s %9s %9s %9s %6s\n",
		"transport", "sessions", "addresses", "cpu %", "bytes/session", "resident", "late p50", "p99", "max ms", "ended")
	for _, row := range r.Rows {
		row.CPUPercent, row.BytesPerSession = round(row.CPUPercent), round(row.BytesPerSession)
		late := summary{}
		if row.LateMS != nil {
			late = *row.LateMS
		}
		fmt.Fprintf(out, "%-9s %9d %9d %10.2f %14.0f %8d KiB %9.2f %9.2f %9.2f %6d\n", row.Transport, row.Sessions,
			row.Addresses, row.CPUPercent, row.BytesPerSession, row.ResidentKiB, late.P50, late.P99, late.Max, row.FalseVerdicts)
	}
	fmt.Fprintln(out)
	return json.NewEncoder(out).Encode(r)
}
