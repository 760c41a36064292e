// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseInt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want int64
		err  string
	}{
		{"1", 1, ""},
		{"65535", 65535, ""},
		{"0", 0, "0 is out of range: expected 1 to 65535"},
		{"65536", 0, "65536 is out of range: expected 1 to 65535"},
		{"-1", 0, "-1 is out of range: expected 1 to 65535"},
		{"99999999999999999999999999999999999999999999", 0, "9999999999999999999999999999999999999999... is out of range: expected 1 to 65535"},
		{"", 0, "expected a number from 1 to 65535, found nothing"},
		{"0x10", 0, `expected a number from 1 to 65535, found "0x10"`},
		{"1.5", 0, `expected a number from 1 to 65535, found "1.5"`},
		{"5 ", 0, `expected a number from 1 to 65535, found "5 "`},
	} {
		got, err := ParseInt(tt.in, 1, 65535)
		if got != tt.want || errorText(err) != tt.err {
			t.Errorf("ParseInt(%q) = %d, %q, want %d, %q", tt.in, got, errorText(err), tt.want, tt.err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const shape = "expected a time like 250ms, 2s or 1min, found "
	for _, tt := range []struct {
		in   string
		want time.Duration
		err  string
	}{
		{"10", 10 * time.Second, ""},
		{"250ms", 250 * time.Millisecond, ""},
		{"10000us", 10 * time.Millisecond, ""},
		{"2 s", 2 * time.Second, ""},
		{"1min", time.Minute, ""},
		{"1h", time.Hour, ""},
		{"0", 0, "0 is out of range: expected 10ms to 1h"},
		{"9ms", 0, "9ms is out of range: expected 10ms to 1h"},
		{"61min", 0, "61min is out of range: expected 10ms to 1h"},
		{"1d", 0, "1d is out of range: expected 10ms to 1h"},
		{"-5", 0, "-5 is out of range: expected 10ms to 1h"},
		{"9223372036854775807", 0, "9223372036854775807 is out of range: expected 10ms to 1h"},
		{"-9223372036854775808h", 0, "-9223372036854775808h is out of range: expected 10ms to 1h"},
		{"99999999999999999999s", 0, "99999999999999999999s is out of range: expected 10ms to 1h"},
		{"1m", 0, shape + `"1m"`},
		{"1S", 0, shape + `"1S"`},
		{"1.5s", 0, shape + `"1.5s"`},
		{"s", 0, shape + `"s"`},
		{"", 0, shape + "nothing"},
	} {
		got, err := ParseDuration(tt.in, time.Second, 10*time.Millisecond, time.Hour)
		if got != tt.want || errorText(err) != tt.err {
			t.Errorf("ParseDuration(%q) = %v, %q, want %v, %q", tt.in, got, errorText(err), tt.want, tt.err)
		}
	}
}

func TestFormatDurationReadsBack(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0", 10 * time.Millisecond: "10ms", 20 * time.Second: "20s", 90 * time.Second: "90s",
		2 * time.Minute: "2min", 48 * time.Hour: "2d", 1500 * time.Microsecond: "1500us", time.Nanosecond: "1ns",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %s, want %s", d, got, want)
		}
	}
}

// The spellings of parse_bool_with_len: "o" alone is ambiguous, "of" is not.
func TestParseBool(t *testing.T) {
	t.Parallel()
	for value, words := range map[bool][]string{
		true:  {"on", "ON", "t", "tr", "true", "y", "yes", "1"},
		false: {"of", "off", "OFF", "f", "false", "n", "no", "0"},
	} {
		for _, w := range words {
			if got, err := ParseBool(w); err != nil || got != value {
				t.Errorf("ParseBool(%q) = %v, %v", w, got, err)
			}
		}
	}
	for _, w := range []string{"", "o", "onn", "2", "10", "ja", "truee"} {
		if _, err := ParseBool(w); err == nil {
			t.Errorf("ParseBool(%q) is accepted", w)
		}
	}
}

func TestParseWord(t *testing.T) {
	t.Parallel()
	words := []string{"rtt", "random", "first"}
	if got, err := ParseWord("RANDOM", words); got != "random" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := ParseWord("round-robin", words)
	if want := `expected rtt, random or first, found "round-robin"`; errorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestParseList(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"": nil, "  ": nil, "a": {"a"}, " a ,b": {"a", "b"},
	} {
		got, err := ParseList(in)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ParseList(%q): %v, %s", in, err, diff)
		}
	}
	for _, in := range []string{",", "a,", "a,,b", " ,a"} {
		if _, err := ParseList(in); err == nil {
			t.Errorf("ParseList(%q) is accepted", in)
		}
	}
}
