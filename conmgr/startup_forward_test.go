// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// What is for conmgr is taken out in every spelling that PostgreSQL reads, and
// not a byte more.
func TestStripOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		options, rest, value string // value "-": none
	}{
		{"", "", "-"},
		{"-c geqo=off", "-c geqo=off", "-"},
		{"-c conmgr.target_session_attrs=standby", "", "standby"},
		{"-cconmgr.target_session_attrs=standby", "", "standby"},
		{"--conmgr.target_session_attrs=standby", "", "standby"},
		{"--conmgr.target-session-attrs=standby", "", "standby"},
		{"-- conmgr.target_session_attrs=standby", "-- conmgr.target_session_attrs=standby", "-"}, // the end of options
		{"-c CONMGR.Target_Session_Attrs=any", "", "any"},
		{`-c conmgr.target_session_attrs=prefer\-standby`, "", "prefer-standby"},
		{`\-c conmgr\.target_session_attrs=any`, "", "any"},
		{`-c\ conmgr.target_session_attrs=any`, `-c\ conmgr.target_session_attrs=any`, "-"}, // a name that begins with a blank
		{"  -c   conmgr.target_session_attrs=any  ", "", "any"},
		{"-c\tconmgr.target_session_attrs=any\n", "", "any"},
		{"-c geqo=off -c conmgr.target_session_attrs=any", "-c geqo=off", "any"},
		{"-c conmgr.target_session_attrs=any -c geqo=off", "-c geqo=off", "any"},
		{"-c a.b=1  --conmgr.target_session_attrs=any  --work_mem=5MB -e", "-c a.b=1  --work_mem=5MB -e", "any"},
		{`-c a.b=x\ y -cconmgr.target_session_attrs=any -c c.d=\\`, `-c a.b=x\ y -c c.d=\\`, "any"},
		{"-c conmgr.target_session_attrs=any -c x.y=1 -c conmgr.target_session_attrs=primary", "-c x.y=1", "primary"},
		{"-ec conmgr.target_session_attrs=any -F", "-e -F", "any"},
		{"-esconmgr.target_session_attrs=any", "-esconmgr.target_session_attrs=any", "-"},
		{"-eFcconmgr.target_session_attrs=any", "-eF", "any"},
		{"-c x.y=conmgr.target_session_attrs=any", "-c x.y=conmgr.target_session_attrs=any", "-"},
		{"-c x.y=1 conmgr.target_session_attrs=any", "-c x.y=1 conmgr.target_session_attrs=any", "-"},
		{"-B -c conmgr.target_session_attrs=any", "-B -c conmgr.target_session_attrs=any", "-"}, // -c is the argument of -B
		{"-B 5 -c conmgr.target_session_attrs=any", "-B 5", "any"},
		{"-d5 -c conmgr.target_session_attrs=any", "-d5", "any"},
		{"-Z -c conmgr.target_session_attrs=any", "-Z -c conmgr.target_session_attrs=any", "-"}, // an error for the instance to report
		{"word -c conmgr.target_session_attrs=any", "word -c conmgr.target_session_attrs=any", "-"},
		{"-c conmgr.target_session_attrs=any -c", "-c", "any"},
		{"-c", "-c", "-"},
		{"-", "-", "-"},
		{`\`, `\`, "-"},
		{"-c conmgr.target_session_attrs=", "", ""},
	} {
		rest, value, err := stripOptions(tt.options)
		if err != nil {
			t.Errorf("%q: %v", tt.options, err)
			continue
		}
		got := "-"
		if value != nil {
			got = *value
		}
		if rest != tt.rest || got != tt.value {
			t.Errorf("%q: left %q, value %q, want %q, %q", tt.options, rest, got, tt.rest, tt.value)
		}
	}
	_, _, err := stripOptions("-c conmgr.target_session_attrs")
	if e, ok := errors.AsType[*pgError](err); !ok || e.code != "42601" {
		t.Errorf("a setting without a value: %v, want 42601", err)
	}
}

// Everything but conmgr's own setting passes byte by byte: order, duplicates,
// empty values, versions that conmgr does not know.
func TestForwardStartup(t *testing.T) {
	t.Parallel()
	const app = "user\x00app\x00"
	for _, tt := range []struct {
		name   string
		body   []byte
		want   string // parameters behind the version, without the last zero
		target Target
	}{
		{"plain", packet(protocol30, app+"\x00"), app, ReadWrite},
		{"duplicates", packet(3<<16|9999, "b\x001\x00"+app+"a\x00\x00b\x002\x00_pq_.x\x00y\x00\x00"), "b\x001\x00" + app + "a\x00\x00b\x002\x00_pq_.x\x00y\x00", ReadWrite},
		{"stripped", packet(protocol32, app+"options\x00-c geqo=off -c conmgr.target_session_attrs=standby\x00z\x001\x00\x00"), app + "options\x00-c geqo=off\x00z\x001\x00", Standby},
		{"nothing left", packet(protocol30, "options\x00--conmgr.target_session_attrs=any\x00"+app+"\x00"), app, Any},
		{"blanks are not touched", packet(protocol30, app+"options\x00  \x00\x00"), app + "options\x00  \x00", ReadWrite},
		{"the last options count", packet(protocol30, app+"options\x00--conmgr.target_session_attrs=any\x00options\x00-e\x00\x00"), app + "options\x00-e\x00", ReadWrite},
		{"own parameter", packet(protocol30, "conmgr.target_session_attrs\x00primary\x00"+app+"options\x00--conmgr.target_session_attrs=any\x00\x00"), app, Primary},
		{"old spelling", packet(protocol30, app+"conmgr.target_session_attrs\x00prefer-read\x00\x00"), app, PreferStandby},
	} {
		got, target, err := forwardStartup(tt.body, ReadWrite)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := framed(append(append(tt.body[:4:4], tt.want...), 0))
		if !bytes.Equal(got, want) || target != tt.target {
			t.Errorf("%s: %q to %s, want %q to %s", tt.name, got, target, want, tt.target)
		}
	}
	_, _, err := forwardStartup(packet(protocol30, app+"options\x00-c conmgr.target_session_attrs=master\x00\x00"), Any)
	if e, ok := errors.AsType[*pgError](err); !ok || e.code != "22023" || !strings.Contains(e.message, "expected any, read-write") {
		t.Errorf("an unknown target: %v, want 22023", err)
	}
}

// FuzzForwardStartup: whatever parseStartup accepts is forwarded as a packet that
// it accepts too, not longer, with the same parameters but conmgr's.
func FuzzForwardStartup(f *testing.F) {
	f.Add(packet(protocol30, "user\x00app\x00options\x00-c a=b --conmgr.target_session_attrs=any\x00\x00"))
	f.Add(packet(3<<16|9999, "user\x00a\x00options\x00-ec \\ conmgr.target-session-attrs=x \\\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		before, err := parseStartup(body, false, false)
		if err != nil || before.kind != startupSession {
			return
		}
		out, _, err := forwardStartup(body, Any)
		if err != nil {
			return
		}
		if int(binary.BigEndian.Uint32(out)) != len(out) || len(out) > len(body)+4 {
			t.Fatalf("length %d of %d bytes, made from %d", binary.BigEndian.Uint32(out), len(out), len(body))
		}
		after, err := parseStartup(out[4:], false, false)
		if err != nil || after.version != before.version {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		for name, value := range before.params {
			if name != "options" && !strings.EqualFold(name, targetOption) && after.params[name] != value {
				t.Errorf("%s was %q, is %q", name, value, after.params[name])
			}
		}
		was, is := before.params["options"], after.params["options"]
		if was != is && !strings.Contains(was, `\`) && !strings.Contains(strings.ToLower(was), "conmgr.target") {
			t.Errorf("options %q became %q", was, is)
		}
	})
}
