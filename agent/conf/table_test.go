// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var testTable = Table{
	{Name: "port", Kind: Integer, Default: "5432", Min: 1, Max: 65535, File: "t.conf", About: "Port.", Low: "low.", High: "high."},
	{Name: "host*", Kind: String, File: "t.conf", About: "Host."},
	{Name: "host_port*", Kind: Integer, Default: "27500", Min: 1, Max: 65535, File: "t.conf", About: "Port of a host."},
	{Name: "check.interval", Kind: Duration, Default: "1000", Unit: time.Millisecond, Min: int64(time.Millisecond), Max: int64(time.Hour), Context: Reload, File: "t.conf", About: "Interval."},
	{Name: "dry_run", Kind: Bool, Default: "off", File: "t.conf", About: "Dry run."},
	{Name: "mode", Kind: Enum, Default: "slow", Words: []string{"slow", "fast"}, File: "t.conf", About: "Mode."},
	{Name: "names", Kind: List, File: "t.conf", About: "Names.", Check: func(s string) error {
		if s == "bad" {
			return errors.New("expected a good name")
		}
		return nil
	}},
}

func mustRead(t *testing.T, text string) *Values {
	t.Helper()
	entries, err := Parse("t.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := testTable.Read(entries)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReadDefaults(t *testing.T) {
	t.Parallel()
	v := mustRead(t, "host3 = x")
	if v.Int("port") != 5432 || v.Duration("check.interval") != time.Second || v.Bool("dry_run") || v.Text("mode") != "slow" {
		t.Errorf("defaults %+v", v.values)
	}
	if v.List("names") != nil || v.Text("host3") != "x" || v.Text("host4") != "" || v.Int("host_port3") != 27500 {
		t.Errorf("values %+v", v.values)
	}
}

func TestReadValuesAndRows(t *testing.T) {
	t.Parallel()
	v := mustRead(t, "host10 = b\nhost2 = a\nport=1\ncheck.interval = 2min\ndry_run = yes\nmode = FAST\nnames = 'x,y'\nhost_port7 = 9\n")
	want := []Row{
		{"port", "1", "t.conf:3", "5432", "restart"},
		{"host2", "a", "t.conf:2", "", "restart"},
		{"host10", "b", "t.conf:1", "", "restart"},
		{"host_port7", "9", "t.conf:8", "27500", "restart"},
		{"check.interval", "2min", "t.conf:4", "1s", "reload"},
		{"dry_run", "on", "t.conf:5", "off", "restart"},
		{"mode", "fast", "t.conf:6", "slow", "restart"},
		{"names", "x, y", "t.conf:7", "", "restart"},
	}
	if diff := cmp.Diff(want, v.Rows()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{2, 10}, v.Numbers("host*")); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"x", "y"}, v.List("names")); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if got := v.Fail("mode", "not with %d", 5).Error(); got != "t.conf:6: mode: not with 5" {
		t.Errorf("Fail: %s", got)
	}
	if got := v.Origin("names"); got != "t.conf:7" {
		t.Errorf("Origin: %s", got)
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	const numbers = "expected a number from 0 to 9999 without leading zeros at the end of the name"
	for _, tt := range []struct{ text, want string }{
		{"prot = 1", "t.conf:1: unknown parameter prot, perhaps port is meant"},
		{"hots1 = 1", "t.conf:1: unknown parameter hots1, perhaps host* is meant"},
		{"completely_else = 1", "t.conf:1: unknown parameter completely_else"},
		{"port = x", `t.conf:1: port: expected a number from 1 to 65535, found "x"`},
		{"host = x", "t.conf:1: host: " + numbers},
		{"host00 = x", "t.conf:1: host00: " + numbers},
		{"host01 = x", "t.conf:1: host01: " + numbers},
		{"host10000 = x", "t.conf:1: host10000: " + numbers},
		{"host99999999999999999999 = x", "t.conf:1: host99999999999999999999: " + numbers},
		{"names = bad", "t.conf:1: names: expected a good name"},
		{"mode = x\ndry_run = x", "t.conf:1: mode: expected slow or fast, found \"x\"\nt.conf:2: dry_run: expected on or off, found \"x\""},
	} {
		entries, err := Parse("t.conf", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = testTable.Read(entries); errorText(err) != tt.want {
			t.Errorf("%s:\n%v\nwant\n%s", tt.text, err, tt.want)
		}
	}
}

func TestReadLaterSourceWins(t *testing.T) {
	t.Parallel()
	v, err := testTable.Read([]Entry{{"port", "1", "t.conf", 4}, {"port", "2", "flag --port", 0}})
	if err != nil || v.Int("port") != 2 || v.Origin("port") != "flag --port" {
		t.Errorf("port %d from %q, %v", v.Int("port"), v.Origin("port"), err)
	}
}

func TestWrongNameOrTypePanics(t *testing.T) {
	t.Parallel()
	v := mustRead(t, "")
	for name, read := range map[string]func(){
		"unknown": func() { v.Int("nothing") },
		"type":    func() { v.Bool("port") },
		"default": func() { _, _ = Table{{Name: "x", Kind: Integer, Default: "y"}}.Read(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			read()
		}()
	}
}

func TestSampleReadsAsDefaults(t *testing.T) {
	t.Parallel()
	sample := string(testTable.AppendSample(nil))
	want := "\n# Port. Too low: low. Too high: high.\n# (integer; 1 to 65535; needs a restart)\n#port = 5432\n"
	if got := sample[:len(want)]; got != want {
		t.Errorf("sample starts\n%s\nwant\n%s", got, want)
	}
	entries, err := Parse("sample", []byte(sample))
	if err != nil || len(entries) != 0 {
		t.Errorf("sample sets %v, %v", entries, err)
	}
}

func TestReadBoundsItsErrors(t *testing.T) {
	t.Parallel()
	var entries []Entry
	for i := range 100000 {
		entries = append(entries, Entry{"unknown", "x", "t.conf", i + 1})
	}
	_, err := testTable.Read(entries)
	if lines := strings.Split(errorText(err), "\n"); len(lines) != maxErrors+1 || !strings.Contains(lines[maxErrors], "too many errors") {
		t.Errorf("%d lines, last %q", len(lines), lines[len(lines)-1])
	}
}
