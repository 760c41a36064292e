// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// Each outcome is counted by its name, and the exit code tells all, some and none
// apart.
func TestKillResults(t *testing.T) {
	t.Parallel()
	outcome := func(r sockdiag.Result) sockdiag.Outcome {
		if r == sockdiag.Destroyed || r == sockdiag.Gone || r == sockdiag.Skipped {
			return sockdiag.Outcome{Result: r}
		}
		return sockdiag.Outcome{Result: r, Err: errors.New("why")}
	}
	for _, tt := range []struct {
		results  []sockdiag.Result
		exit     int
		counts   string
		why      string
		warnings int
	}{
		{[]sockdiag.Result{sockdiag.Destroyed, sockdiag.Destroyed}, 0, "2 destroyed", "", 0},
		{[]sockdiag.Result{sockdiag.Gone}, 0, "1 gone already", "", 0},
		{[]sockdiag.Result{sockdiag.Destroyed, sockdiag.Gone}, 0, "1 destroyed, 1 gone already", "", 0},
		{[]sockdiag.Result{sockdiag.NotPermitted, sockdiag.NotPermitted}, 1, "2 not permitted", "2 sockets: none destroyed: CAP_NET_ADMIN is missing, run as root", 2},
		{[]sockdiag.Result{sockdiag.NotSupported}, 1, "1 not supported", "1 socket: none destroyed: this kernel is built without CONFIG_INET_DIAG_DESTROY", 1},
		{[]sockdiag.Result{sockdiag.Failed, sockdiag.Refused}, 1, "1 refused, 1 failed", "2 sockets: none destroyed", 2},
		{[]sockdiag.Result{sockdiag.Destroyed, sockdiag.Skipped, sockdiag.Failed}, exitPartly, "1 skipped, 1 destroyed, 1 failed", "2 sockets of 3 are not destroyed", 2},
		{[]sockdiag.Result{sockdiag.Gone, sockdiag.NotPermitted}, exitPartly, "1 gone already, 1 not permitted", "1 socket of 2 are not destroyed", 1},
	} {
		seen := &look{}
		var outcomes []sockdiag.Outcome
		for i, r := range tt.results {
			peer := netip.AddrPortFrom(netip.MustParseAddr("10.99.0.1"), uint16(i+1))
			seen.rows = append(seen.rows, row{Socket: sockdiag.Socket{Local: peer, Remote: peer, State: sockdiag.Established}})
			outcomes = append(outcomes, outcome(r))
		}
		s := newSession(0, "")
		err := new(killOptions).printResults(&s.env, seen, outcomes)
		var exit *exitError
		code := 0
		if errors.As(err, &exit) {
			code = exit.code
		}
		if code != tt.exit || s.out.String() != tt.counts+"\n" || err != nil && err.Error() != tt.why || (err == nil) != (tt.exit == 0) {
			t.Errorf("%v: exit %d, %v, stdout %q", tt.results, code, err, s.out)
		}
		if n := strings.Count(s.errs.String(), "agentctl: warning: 10.99.0.1:"); n != tt.warnings {
			t.Errorf("%v: %d warnings: %s", tt.results, n, s.errs)
		}
	}
}

func TestKillNamesTenOfMany(t *testing.T) {
	t.Parallel()
	seen := &look{rows: make([]row, 25)}
	outcomes := make([]sockdiag.Outcome, 25)
	s := newSession(0, "")
	printReasons(&s.env, seen, outcomes)
	if got := s.errs.String(); strings.Count(got, "\n") != 11 || !strings.HasSuffix(got, "warning: and 15 others\n") {
		t.Errorf("stderr %s", got)
	}
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"y\nrest": "y", "": "", "yes": "yes", " Y \r\n": "Y", strings.Repeat("x", 1000): strings.Repeat("x", 100),
	} {
		r := strings.NewReader(text)
		if got := readAnswer(r); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		if left := fmt.Sprint(r.Len()); text == "y\nrest" && left != "4" {
			t.Errorf("%s bytes are left, want those of the next line", left)
		}
	}
}
