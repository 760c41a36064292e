// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

var pauseNoon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// A pause ends when it was to end, whatever happened to the clocks meanwhile.
func TestPauseLeft(t *testing.T) {
	t.Parallel()
	const begun = mono.Instant(1000 * time.Second)
	p := newPause("boot 1", begun, pauseNoon, time.Hour, "root", "cables")
	for _, tt := range []struct {
		name   string
		boot   string
		passed time.Duration // on the boot-time clock
		wall   time.Duration // on the wall clock
		want   time.Duration
	}{
		{"at once", "boot 1", 0, 0, time.Hour},
		{"later", "boot 1", 20 * time.Minute, 20 * time.Minute, 40 * time.Minute},
		{"at its end", "boot 1", time.Hour, time.Hour, 0},
		{"wall clock forward", "boot 1", 20 * time.Minute, 48 * time.Hour, 40 * time.Minute},
		{"wall clock back", "boot 1", 20 * time.Minute, -48 * time.Hour, 40 * time.Minute},
		{"boot", "boot 2", -900 * time.Second, 20 * time.Minute, 40 * time.Minute},
		{"boot after its end", "boot 2", -900 * time.Second, 2 * time.Hour, -time.Hour},
		{"boot, wall clock back", "boot 2", -900 * time.Second, -time.Second, 0},
		{"a boot-time clock that went back", "boot 1", -900 * time.Second, 0, time.Hour},
	} {
		if got := p.left(tt.boot, begun.Add(tt.passed), pauseNoon.Add(tt.wall)); got != tt.want {
			t.Errorf("%s: %s left, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPauseFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if p, err := loadPause(dir); p != nil || err != nil {
		t.Errorf("nothing kept: %+v, %v", p, err)
	}
	p := newPause("boot 1", 5, pauseNoon, MaxPause, "root for alice", "new switch")
	if err := savePause(dir, &p); err != nil {
		t.Fatal(err)
	}
	got, err := loadPause(dir)
	if err != nil {
		t.Fatal(err)
	}
	p.restored = true
	if diff := cmp.Diff(&p, got, cmp.AllowUnexported(Pause{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, pauseFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := savePause(dir, nil); err != nil {
			t.Errorf("take back: %v", err)
		}
	}
	if p, err := loadPause(dir); p != nil || err != nil {
		t.Errorf("taken back: %+v, %v", p, err)
	}
	if err := savePause(filepath.Join(dir, "absent"), &p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A file that is not what savePause writes pauses nothing.
func TestPauseFileDamaged(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":       "",
		"torn":        `{"version":1,"since":"2026-11-25T12:0`,
		"version":     `{"version":2,"since":"2026-11-25T12:00:00Z","until":"2026-11-25T13:00:00Z"}`,
		"no end":      `{"version":1,"since":"2026-11-25T12:00:00Z"}`,
		"a year":      `{"version":1,"since":"2026-11-25T12:00:00Z","until":"2027-11-25T12:00:00Z"}`,
		"ends before": `{"version":1,"since":"2026-11-25T12:00:00Z","until":"2026-11-25T11:00:00Z"}`,
		"huge":        `{"version":1,"by":"` + strings.Repeat("x", pauseMaxBytes) + `"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, pauseFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := loadPause(dir); p != nil || err == nil {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}
