// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is all that was measured.
type report struct {
	Sizes  []*row `json:"sizes"`
	Rounds int    `json:"rounds"`
	Others int    `json:"others"`
	Alive  bool   `json:"peer_alive"`
	// Realtime: nothing else of the machine came between.
	Realtime bool   `json:"realtime"`
	Commit   string `json:"commit"`
	Kernel   string `json:"kernel"`
	Cores    int    `json:"cores"`
	// Load is the load average of the last minute when the run began: what else
	// the machine had to do.
	Load string `json:"load_before"`
}

// row is one number of sockets. Times are medians, in milliseconds. Ours are with
// the second look, which ss does not take; OnePass is without it.
type row struct {
	Size         int     `json:"size"`
	OursMS       float64 `json:"ours_ms"`
	SSMS         float64 `json:"ss_ms"`
	Ratio        float64 `json:"ratio"`
	OnePassMS    float64 `json:"ours_one_pass_ms"`
	OnePassRatio float64 `json:"ratio_one_pass"`
	SSIdleMS     float64 `json:"ss_idle_ms"`
	Survivors    int     `json:"survivors"`
	// BystandersLost and Survivors are ours, over all rounds.
	BystandersLost   int       `json:"bystanders_lost"`
	SSSurvivors      int       `json:"ss_survivors"`
	SSBystandersLost int       `json:"ss_bystanders_lost"`
	OursRaw          []float64 `json:"ours_raw_ms"`
	SSRaw            []float64 `json:"ss_raw_ms"`

	ours, onePass, ss, idle []time.Duration
}

func newReport(ctx context.Context, b *bench) report {
	r := report{
		Sizes: []*row{}, Rounds: b.rounds, Others: b.others, Alive: b.alive,
		Commit: commit(ctx), Kernel: "unknown", Cores: runtime.NumCPU(), Load: "unknown",
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Load, _, _ = strings.Cut(string(text), " ")
	}
	return r
}

// commit is that of the working directory, with a mark when files differ.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func (r *report) add(size int) *row {
	added := &row{Size: size}
	r.Sizes = append(r.Sizes, added)
	return added
}

func (w *row) summarize() {
	w.OursMS, w.OnePassMS = median(w.ours), median(w.onePass)
	w.SSMS, w.SSIdleMS = median(w.ss), median(w.idle)
	w.OursRaw, w.SSRaw = raw(w.ours), raw(w.ss)
	if w.SSMS > 0 {
		w.Ratio = math.Round(1000*w.OursMS/w.SSMS) / 1000
		w.OnePassRatio = math.Round(1000*w.OnePassMS/w.SSMS) / 1000
	}
}

// median is the mean of the two in the middle when there are two.
func median(all []time.Duration) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return millis((sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2)
}

func raw(all []time.Duration) []float64 {
	values := make([]float64, len(all))
	for i, d := range all {
		values[i] = millis(d)
	}
	return values
}

func millis(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1000 }

// print writes a table for people and one line for programs.
func (r *report) print(out io.Writer) error {
	fmt.Fprintf(out, "Kill of one peer's sockets among %d of others, medians of %d rounds in milliseconds;\nours until a second look found none left, \"one pass\" until the last was destroyed. %d cores, load %s before, real-time %t.\n\n",
		r.Others, r.Rounds, r.Cores, r.Load, r.Realtime)
	fmt.Fprintf(out, "%8s %9s %9s %7s %9s %7s %9s %10s %10s\n",
		"sockets", "ours", "ss -K", "ratio", "one pass", "ratio", "ss idle", "survivors", "bystanders")
	for _, w := range r.Sizes {
		w.summarize()
		fmt.Fprintf(out, "%8d %9.2f %9.2f %7.3f %9.2f %7.3f %9.2f %10d %10d\n",
			w.Size, w.OursMS, w.SSMS, w.Ratio, w.OnePassMS, w.OnePassRatio, w.SSIdleMS, w.Survivors, w.BystandersLost)
	}
	fmt.Fprintln(out)
	return json.NewEncoder(out).Encode(r)
}

// verdict is an error when a kill of ours left somebody or took a stranger.
func (r *report) verdict() error {
	for _, w := range r.Sizes {
		if w.Survivors > 0 || w.BystandersLost > 0 {
			return fmt.Errorf("%d sockets: %d survivors, %d bystanders lost: expected none", w.Size, w.Survivors, w.BystandersLost)
		}
	}
	return nil
}
