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

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func TestArmedRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s := NewArmedStore(dir)
	if set, err := s.Load(); err != nil || len(set.Records) != 0 {
		t.Fatalf("no file: %+v, %v", set, err)
	}
	want := ArmedSet{BootID: "boot", PostmasterStart: 42, Records: []ArmedRecord{
		{Client: Client{Addr: hostA, Conmgr: wire.ID{1, 0xff}, Incarnation: 1 << 63}, Interval: time.Second, Timeout: 3 * time.Second, Armed: 12345},
		{Client: Client{Addr: hostB, Conmgr: wire.ID{2}}, Interval: 50 * time.Millisecond, Timeout: 150 * time.Millisecond, Armed: 1},
	}}
	for range 2 {
		if err := s.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load()
	if diff := cmp.Diff(want, got, cmp.Comparer(sameAddr)); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	info, err := os.Stat(filepath.Join(dir, armedFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v: want 0600", info.Mode(), err)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestArmedDiscard(t *testing.T) {
	set := ArmedSet{BootID: "boot", PostmasterStart: 42}
	if why := set.Discard("boot", 42); why != "" {
		t.Errorf("discarded: %s", why)
	}
	if set.Discard("other", 42) == "" || set.Discard("boot", 43) == "" {
		t.Error("records of another boot or postmaster are taken")
	}
}

func TestArmedDamaged(t *testing.T) {
	good := `{"version":1,"boot_id":"b","postmaster_start_us":1,"clients":[{"addr":"192.0.2.1","conmgr":"` +
		strings.Repeat("ab", 16) + `","interval_ms":1000,"timeout_ms":3000,"armed_boottime_ns":5}]}`
	if set, err := parseArmed([]byte(good)); err != nil || len(set.Records) != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	for _, text := range []string{
		"", "{", "null", `[]`, `{"version":2}`, good[:len(good)/2],
		strings.Replace(good, "abab", "ab", 1), strings.Replace(good, "3000", "0", 1),
		strings.Replace(good, "3000", "-1", 1), strings.Replace(good, "3000", "9223372036854775807", 1),
		strings.Replace(good, "192.0.2.1", "", 1), strings.Replace(good, "192.0.2.1", "host", 1),
		strings.Replace(good, "abab", "xyzt", 1),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, armedFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewArmedStore(dir)
		set, err := s.Load()
		if !errors.Is(err, ErrArmedDamaged) || len(set.Records) != 0 {
			t.Errorf("%.60q: %+v, %v: want %v", text, set, err, ErrArmedDamaged)
		}
		if kept, err := os.ReadFile(filepath.Join(dir, armedDamaged)); err != nil || string(kept) != text {
			t.Errorf("%.60q: kept %q, %v", text, kept, err)
		}
		if _, err := s.Load(); err != nil {
			t.Errorf("second start: %v", err)
		}
	}
}

func FuzzArmed(f *testing.F) {
	f.Add([]byte(`{"version":1,"clients":[{"addr":"::1","conmgr":"00","timeout_ms":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseArmed(data)
		for _, r := range set.Records {
			if err != nil || r.Timeout <= 0 || r.Timeout > maxTimeout || !r.Addr.IsValid() {
				t.Errorf("record %+v, %v", r, err)
			}
		}
	})
}
