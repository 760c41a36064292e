// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

func TestBehindSchedule(t *testing.T) {
	const ms = mono.Instant(time.Millisecond)
	for _, tt := range []struct {
		name string
		at   []mono.Instant
		want []time.Duration
	}{
		{"on time", []mono.Instant{5000 * ms, 6000 * ms, 7000 * ms}, []time.Duration{0, 0, 0}},
		{"one late", []mono.Instant{5000 * ms, 6003 * ms, 7000 * ms}, []time.Duration{0, 3e6, 0}},
		{"the first is late", []mono.Instant{5002 * ms, 6000 * ms, 7001 * ms}, []time.Duration{2e6, 0, 1e6}},
		{"one is missing", []mono.Instant{5000 * ms, 7001 * ms}, []time.Duration{0, 1e6}},
		{"none", nil, nil},
	} {
		if got := behindSchedule(tt.at, time.Second); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
