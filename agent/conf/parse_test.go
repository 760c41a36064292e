// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	text := "# comment\n" +
		"port = 27546\n" +
		"\t backend_host0='host0'#behind\r\n" +
		"Watchdog.Port=1 # folded\n" +
		"\n" +
		"ident = 'it''s # no comment'\n" +
		"empty = ''\n" +
		"word = a:b,c/d*\n" +
		"last = 'no newline'"
	want := []Entry{
		{"port", "27546", "f", 2},
		{"backend_host0", "host0", "f", 3},
		{"watchdog.port", "1", "f", 4},
		{"ident", "it's # no comment", "f", 6},
		{"empty", "", "f", 7},
		{"word", "a:b,c/d*", "f", 8},
		{"last", "no newline", "f", 9},
	}
	got, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"no value", "port =", "f:1: port: expected a value behind ="},
		{"comment for a value", "port = # 5", "f:1: port: expected a value behind ="},
		{"no equals sign", "\nport 5", `f:2: expected "=" behind port, found "5"`},
		{"name alone", "port", `f:1: expected "=" behind port, found nothing`},
		{"no name", "= 5", `f:1: expected a parameter name, found "= 5"`},
		{"digit first", "5port = 5", `f:1: expected a parameter name, found "5port = 5"`},
		{"negative number", "backend_host-1 = 'x'", `f:1: expected "=" behind backend_host, found "-1 = 'x'"`},
		{"unterminated", "a = 'x", "f:1: a: unterminated quote: expected ' at the end of the value"},
		{"unterminated, doubled", "a = 'x''", "f:1: a: unterminated quote: expected ' at the end of the value"},
		{"behind quote", "a = 'x' y", `f:1: a: expected nothing behind the value, found "y" (a value with blanks is enclosed in ')`},
		{"backslash escape", `a = 'x\'y'`, `f:1: a: expected nothing behind the value, found "y'" (a value with blanks is enclosed in ')`},
		{"behind word", "a = x, y", `f:1: a: expected nothing behind the value, found "y" (a value with blanks is enclosed in ')`},
		{"double quotes", `a = "x"`, `f:1: a: found " in a value without quotes: expected the value enclosed in '`},
		{"quote inside word", "a = x'y'", `f:1: a: found ' in a value without quotes: expected the value enclosed in '`},
		{"two equals signs", "a == 5", `f:1: a: found = in a value without quotes: expected the value enclosed in '`},
		{"NUL", "a = 'x\x00'", "f:1: control character 0x00: expected text"},
		{"escape", "a = \x1b[31m", "f:1: control character 0x1b: expected text"},
		{"not UTF-8", "a = '\xff'", "f:1: invalid UTF-8: expected text in UTF-8"},
		{"byte order mark", "\ufeffa = 1", "f:1: expected a parameter name, found \"\\ufeffa = 1\""},
		{"duplicate", "a = 1\n\nA = 1", "f:3: a is already set in line 1: expected it once"},
		{"long line", "a = " + strings.Repeat("x", MaxLine), "f:1: line of 8196 bytes: expected at most 8192"},
		{"long garbage", "é" + strings.Repeat("é", 40), `f:1: expected a parameter name, found "` + strings.Repeat("é", 20) + `"...`},
		{"all are told", "x\ny", "f:1: expected \"=\" behind x, found nothing\nf:2: expected \"=\" behind y, found nothing"},
		{"huge file", strings.Repeat("\n", MaxFile+1), "f: file of 1048577 bytes: expected at most 1048576"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("f", []byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("error\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestParseKeepsGoodLinesAndPlace(t *testing.T) {
	t.Parallel()
	entries, err := Parse("f", []byte("a = 1\nb\nc = 3"))
	if len(entries) != 2 || entries[1].Line != 3 {
		t.Errorf("entries %v", entries)
	}
	var e *Error
	if !errors.As(err, &e) || e.Line != 2 || e.File != "f" {
		t.Errorf("error %#v", err)
	}
}

func TestParseBoundsItsErrors(t *testing.T) {
	t.Parallel()
	_, err := Parse("f", []byte(strings.Repeat("garbage\n", 10000)))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrors+1 || !strings.Contains(lines[maxErrors], "too many errors") {
		t.Errorf("%d lines, last %q", len(lines), lines[len(lines)-1])
	}
}

// FuzzParse: no panic, every entry comes back when it is written and read again,
// and every error names the file.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a = 'b''c' # d", "a=1\na=2", "x.y = z\r\n", "a = '", "\x00", "a = \xc3", "é = 1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := Parse("file", text)
		if err != nil && !strings.HasPrefix(err.Error(), "file:") {
			t.Fatalf("error without the file: %v", err)
		}
		var again strings.Builder
		for _, e := range entries {
			again.WriteString(e.Name + " = '" + strings.ReplaceAll(e.Value, "'", "''") + "'\n")
		}
		back, err := Parse("file", []byte(again.String()))
		if err != nil && !strings.Contains(err.Error(), "expected at most") {
			t.Fatalf("reading back %q: %v", again.String(), err)
		}
		if err == nil && len(back) != len(entries) {
			t.Fatalf("%d entries became %d", len(entries), len(back))
		}
		for i := range back {
			if back[i].Name != entries[i].Name || back[i].Value != entries[i].Value {
				if err == nil {
					t.Fatalf("%v became %v", entries[i], back[i])
				}
			}
		}
	})
}
