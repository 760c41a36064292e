// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packet makes the body of a first packet.
func packet(code uint32, rest string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, code), rest...)
}

func TestParseStartup(t *testing.T) {
	for _, tt := range []struct {
		name string
		body []byte
		want startup
		code string // SQLSTATE of the refusal
	}{
		{"3.0", packet(protocol30, "user\x00app\x00\x00"), startup{version: protocol30, params: map[string]string{"user": "app"}}, ""},
		{"3.1", packet(3<<16|1, "user\x00app\x00\x00"), startup{version: 3<<16 | 1, params: map[string]string{"user": "app"}}, ""},
		{"3.9999", packet(3<<16|9999, "user\x00app\x00_pq_.x\x00y\x00\x00"),
			startup{version: 3<<16 | 9999, params: map[string]string{"user": "app"}, protocol: []string{"_pq_.x"}}, ""},
		{"duplicate", packet(protocol30, "user\x00a\x00user\x00b\x00\x00"), startup{version: protocol30, params: map[string]string{"user": "b"}}, ""},
		{"empty value", packet(protocol30, "user\x00a\x00options\x00\x00\x00"), startup{version: protocol30, params: map[string]string{"user": "a", "options": ""}}, ""},
		{"ssl", packet(sslCode, ""), startup{kind: startupSSL}, ""},
		{"gss", packet(gssCode, ""), startup{kind: startupGSS}, ""},
		{"cancel, key of 4", packet(cancelCode, "pidxkey4"), startup{kind: startupCancel}, ""},
		{"cancel, key of 256", packet(cancelCode, "pidx"+strings.Repeat("k", 256)), startup{kind: startupCancel}, ""},
		{"cancel, key of 3", packet(cancelCode, "pidxkey"), startup{}, "08P01"},
		{"cancel, key of 257", packet(cancelCode, "pidx"+strings.Repeat("k", 257)), startup{}, "08P01"},
		{"2.0", packet(2<<16, "user\x00app\x00\x00"), startup{}, "0A000"},
		{"4.0", packet(4<<16, "user\x00app\x00\x00"), startup{}, "0A000"},
		{"no user", packet(protocol30, "database\x00conmgr\x00\x00"), startup{}, "28000"},
		{"nothing", packet(protocol30, ""), startup{}, "08P01"},
		{"no terminator", packet(protocol30, "user\x00app\x00"), startup{}, "08P01"},
		{"no value", packet(protocol30, "user\x00"), startup{}, "08P01"},
		{"bytes behind", packet(protocol30, "user\x00app\x00\x00x"), startup{}, "08P01"},
		{"short", []byte{0, 3}, startup{}, "08P01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStartup(tt.body, true, true)
			if tt.code != "" {
				e, ok := errors.AsType[*pgError](err)
				if !ok || e.code != tt.code || e.severity != "FATAL" {
					t.Fatalf("error is %v, want FATAL %s", err, tt.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(startup{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A second SSLRequest is what PostgreSQL takes it for: an unknown version.
func TestSecondSSLRequest(t *testing.T) {
	_, err := parseStartup(packet(sslCode, ""), false, true)
	if e, ok := errors.AsType[*pgError](err); !ok || e.code != "0A000" {
		t.Errorf("error is %v, want 0A000", err)
	}
}

func TestSpeaks(t *testing.T) {
	for _, tt := range []struct {
		s    startup
		want uint32
		tell bool
	}{
		{startup{version: protocol30}, protocol30, false},
		{startup{version: 3<<16 | 1}, 3<<16 | 1, false},
		{startup{version: protocol32}, protocol32, false},
		{startup{version: 3<<16 | 3}, protocol32, true},
		{startup{version: protocol30, protocol: []string{"_pq_.x"}}, protocol30, true},
	} {
		if got, tell := tt.s.speaks(); got != tt.want || tell != tt.tell {
			t.Errorf("%x: speaks %x, tell %v; want %x, %v", tt.s.version, got, tell, tt.want, tt.tell)
		}
	}
}

func TestCheckStartupLength(t *testing.T) {
	for length, ok := range map[uint32]bool{0: false, 7: false, 8: true, 10_000: true, 10_001: false, 1 << 31: false} {
		if err := checkStartupLength(length); (err == nil) != ok {
			t.Errorf("length %d: %v", length, err)
		}
	}
	if err := checkStartupLength(0x16030100); !errors.Is(err, errDirectTLS) {
		t.Errorf("a TLS record: %v, want errDirectTLS", err)
	}
}

func FuzzParseStartup(f *testing.F) {
	f.Add(packet(protocol30, "user\x00app\x00\x00"), true, true)
	f.Add(packet(3<<16|9999, "user\x00app\x00_pq_.x\x00y\x00\x00"), true, false)
	f.Add(packet(cancelCode, "pidxkey4"), false, false)
	f.Add(packet(sslCode, ""), true, true)
	f.Fuzz(func(t *testing.T, body []byte, ssl, gss bool) {
		s, err := parseStartup(body, ssl, gss)
		if err != nil {
			if _, ok := errors.AsType[*pgError](err); !ok {
				t.Fatalf("error %v cannot be told to the client", err)
			}
			return
		}
		if s.kind == startupSession && (s.version>>16 != 3 || s.params["user"] == "") {
			t.Fatalf("accepted %+v", s)
		}
		for name, value := range s.params {
			if strings.Contains(name+value, "\x00") || strings.HasPrefix(name, "_pq_.") {
				t.Fatalf("parameter %q = %q", name, value)
			}
		}
	})
}
