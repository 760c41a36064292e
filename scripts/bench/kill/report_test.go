// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestReportEndsWithItsFigures(t *testing.T) {
	ms := func(values ...int) (all []time.Duration) {
		for _, v := range values {
			all = append(all, time.Duration(v)*time.Millisecond)
		}
		return all
	}
	r := &report{Rounds: 4}
	row := r.add(4000)
	row.ours, row.onePass, row.ss = ms(30, 10, 14, 12), ms(20), ms(40, 20, 60)
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var got struct {
		Sizes []map[string]any `json:"sizes"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"size": 4000, "ours_ms": 13, "ss_ms": 40, "ratio": 0.325, "ours_one_pass_ms": 20, "ratio_one_pass": 0.5,
		"survivors": 0, "bystanders_lost": 0,
	}
	for name, value := range want {
		if got.Sizes[0][name] != value {
			t.Errorf("%s: %v, want %v", name, got.Sizes[0][name], value)
		}
	}
	if err := r.verdict(); err != nil {
		t.Errorf("verdict of a clean run: %v", err)
	}
	row.BystandersLost = 1
	if r.verdict() == nil {
		t.Error("a lost bystander is no error")
	}
	row.BystandersLost, row.Survivors = 0, 1
	if r.verdict() == nil {
		t.Error("a survivor is no error")
	}
}
