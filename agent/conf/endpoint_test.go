// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEndpoints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Endpoint{
		"":                          {},
		"27548":                     {{"localhost", 27548}},
		"*:1":                       {{"*", 1}},
		"10.0.0.1:65535":            {{"10.0.0.1", 65535}},
		"[::1]:27548, db1:27549":    {{"::1", 27548}, {"db1", 27549}},
		"[fe80::1%eth0]:27548,1, 2": {{"fe80::1%eth0", 27548}, {"localhost", 1}, {"localhost", 2}},
	} {
		got, err := ParseEndpoints(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
		for _, e := range got {
			if back, err := ParseEndpoints(e.String()); err != nil || len(back) != 1 || back[0] != e {
				t.Errorf("%v is read back as %v, %v", e, back, err)
			}
		}
	}
}

func TestParseEndpointsRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0":                           "expected a port, host:port or *:port",
		"65536":                       "expected a port",
		"db1":                         "expected a port",
		"db1:":                        "expected a port",
		":27548":                      "expected *:27548 for every address",
		"::1:27548":                   "an IPv6 address in brackets",
		"[10.0.0.1]:1":                "an IPv6 address in brackets",
		"[::1:1":                      "an IPv6 address in brackets",
		"http://db1:1":                "in front of the port",
		"/run/metrics:1":              "in front of the port",
		"1,,2":                        "",
		strings.Repeat("1,", 8) + "1": "at most 8 addresses, found 9",
	} {
		if got, err := ParseEndpoints(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", text, got, err, want)
		}
	}
}
