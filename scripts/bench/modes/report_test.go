// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"
)

// Each way comes at each place, and after each other one, equally often.
func TestOrder(t *testing.T) {
	for _, all := range [][]string{{"a"}, {"a", "b", "c"}, {"a", "b", "c", "d"}, {"a", "b", "c", "d", "e", "f", "g"}} {
		place, after := map[string]int{}, map[string]int{}
		for i := range 2 * len(all) {
			got := order(all, i)
			if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, all) {
				t.Errorf("round %d: %q", i, got)
			}
			for at, way := range got {
				place[fmt.Sprint(way, at)]++
				if at > 0 {
					after[got[at-1]+way]++
				}
			}
		}
		n := len(all)
		if len(place) != n*n || len(after) != n*(n-1) {
			t.Errorf("%d ways: %d places, %d pairs: want %d, %d", n, len(place), len(after), n*n, n*(n-1))
		}
		for _, counts := range []map[string]int{place, after} {
			for what, times := range counts {
				if times != 2 {
					t.Errorf("%d ways: %s %d times, want 2", n, what, times)
				}
			}
		}
	}
}

// Ratios are taken within a round, and the median is that of the ratios.
func TestSummaries(t *testing.T) {
	r := report{Raw: map[string]map[string][]float64{}}
	for _, values := range [][2]float64{{100, 50}, {10, 10}, {300, 100}} {
		r.add("select", "proxy", values[0])
		r.add("select", "haproxy", values[1])
	}
	for way, ms := range map[string]float64{"straight": 2, "direct": 2.5, "proxy": 3.25, "pass-through": 2.75} {
		r.add("connect", way, ms)
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	var got struct {
		Proxy   quartiles  `json:"proxy_vs_haproxy"`
		Extra   float64    `json:"connect_extra_ms"`
		Bouncer *quartiles `json:"proxy_vs_pgbouncer"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &got); err != nil {
		t.Fatalf("the last line: %v", err)
	}
	if want := (quartiles{Median: 2, Q1: 1.5, Q3: 2.5}); got.Proxy != want {
		t.Errorf("proxy_vs_haproxy is %+v, want %+v", got.Proxy, want)
	}
	if got.Extra != 1.25 || got.Bouncer != nil {
		t.Errorf("connect_extra_ms is %v, want 1.25; proxy_vs_pgbouncer %v, want none", got.Extra, got.Bouncer)
	}
}

// The first second of a way is not counted where each second is told.
func TestMean(t *testing.T) {
	const text = `pgbench (15.20)
progress: 1.0 s, 1000.0 tps, lat 0.2 ms stddev 0.1, 0 failed
progress: 2.0 s, 2000.0 tps, lat 0.2 ms stddev 0.1, 0 failed
progress: 3.0 s, 2500.0 tps, lat 0.2 ms stddev 0.1, 0 failed
number of transactions actually processed: 5500
latency average = 0.251 ms
tps = 1833.5 (without initial connection time)
`
	for name, c := range map[string]struct {
		figure *regexp.Regexp
		want   float64
	}{"steady": {steady, 2250}, "tps": {tps, 1833.5}, "latency": {latency, 0.251}, "processed": {processed, 5500}} {
		if got, err := mean(text, c.figure); err != nil || got != c.want {
			t.Errorf("%s is %v, %v: want %v", name, got, err, c.want)
		}
	}
	if _, err := mean("progress: 1.0 s, 1000.0 tps\n", steady); err == nil {
		t.Error("a run of one second has a figure")
	}
}
