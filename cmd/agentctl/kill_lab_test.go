// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// battlefield is a database host with connections of a client that is to lose
// its sockets on port 5432, and bystanders that must not.
type battlefield struct {
	client, db *agenttest.Host
	dual       server
	doomed     []pair
	bystanders []pair
}

func mustBattlefield(t *testing.T) *battlefield {
	t.Helper()
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	b := &battlefield{client: client, db: db, dual: mustListen(t, db, "tcp", "[::]:5432")}
	second := mustListen(t, db, "tcp4", db.Addr4.String()+":6000")
	elsewhere := mustListen(t, client, "tcp4", client.Addr4.String()+":5432")
	for range 3 {
		b.doomed = append(b.doomed, b.dual.mustConnect(t, client, db.Addr4, 0))
		b.bystanders = append(b.bystanders,
			b.dual.mustConnect(t, other, db.Addr4, 0),        // another client
			b.dual.mustConnect(t, client, db.Addr6, 0),       // by another address
			second.mustConnect(t, client, db.Addr4, 0),       // another port
			elsewhere.mustConnect(t, db, client.Addr4, 0),    // out to the same port there
			elsewhere.mustConnect(t, other, client.Addr4, 0)) // not of this host
	}
	return b
}

// mustAll wants the doomed to be as they are said to be, and every bystander and
// the listener alive.
func (b *battlefield) mustAll(t *testing.T, dead bool) {
	t.Helper()
	for _, p := range b.doomed {
		if dead {
			p.mustBeDead(t)
		} else {
			p.mustTalk(t)
		}
	}
	for _, p := range b.bystanders {
		p.mustTalk(t)
	}
	b.dual.mustConnect(t, b.client, b.db.Addr4, 0).mustTalk(t)
}

func (b *battlefield) args(more ...string) []string {
	return append([]string{"sockets", "kill", "--peer", b.client.Addr4.String(), "--port", "5432"}, more...)
}

func TestKillAfterQuestion(t *testing.T) {
	b := mustBattlefield(t)
	s := newSession(200, "y\nn\n")
	s.mustIn(t, b.db, 0, b.args()...)
	out := s.out.String()
	for _, p := range b.doomed {
		if !strings.Contains(out, p.name()) {
			t.Errorf("%s was not shown:\n%s", p.name(), out)
		}
	}
	if n := strings.Count(out, "ESTAB"); n != 3 || !strings.HasSuffix(out, "3 sockets\n3 destroyed\n") {
		t.Errorf("stdout:\n%s", out)
	}
	if got := s.errs.String(); got != "Destroy 3 sockets of 10.99.0.1? [y/N] " {
		t.Errorf("stderr %q", got)
	}
	b.mustAll(t, true)
	if got := peersOf(mustList(t, b.db, "--state", "listen", "--port", "5432")); len(got) != 1 {
		t.Errorf("listening: %q", got)
	}
}

// Nothing happens without a clear yes.
func TestKillRefusals(t *testing.T) {
	b := mustBattlefield(t)
	for _, tt := range []struct {
		name   string
		answer string
		args   []string
		exit   int
		stderr string
	}{
		{"nobody there", "", b.args(), exitRefused, "nobody can be asked, as this is no terminal: nothing was done; expected --yes or --dry-run"},
		{"no", "n\n", b.args(), exitRefused, "not confirmed: nothing was done"},
		{"empty", "\n", b.args(), exitRefused, "not confirmed: nothing was done"},
		{"not quite", "yesterday\n", b.args(), exitRefused, "not confirmed: nothing was done"},
		{"own IPv4", "y\n", []string{"sockets", "kill", "--peer", b.db.Addr4.String(), "--port", "5432"}, exitRefused, "10.99.0.3 is an address of this host: nothing was done; --own-address destroys its sockets, too"},
		{"own IPv6", "y\n", []string{"sockets", "kill", "--peer", b.db.Addr6.String(), "--port", "5432", "--yes"}, exitRefused, "fd99::3 is an address of this host"},
		{"own mapped", "y\n", []string{"sockets", "kill", "--peer", "::ffff:" + b.db.Addr4.String(), "--port", "5432", "--yes"}, exitRefused, "is an address of this host"},
		{"loopback", "y\n", []string{"sockets", "kill", "--peer", "127.0.0.77", "--port", "5432", "--yes"}, exitRefused, "127.0.0.77 is an address of this host"},
		{"all ports", "y\n", []string{"sockets", "kill", "--peer", b.client.Addr4.String(), "--yes"}, 2, "no port: expected --port=PORT, or --all-ports"},
		{"dry run", "y\n", b.args("--dry-run", "--yes"), 0, ""},
		{"dry run in a script", "", b.args("--dry-run"), 0, ""},
		{"nothing to do", "", []string{"sockets", "kill", "--peer", b.client.Addr4.String(), "--port", "5433"}, 0, ""},
	} {
		s := newSession(0, tt.answer)
		s.mustIn(t, b.db, tt.exit, tt.args...)
		if !strings.Contains(s.errs.String(), tt.stderr) {
			t.Errorf("%s: stderr %q, want %s", tt.name, s.errs, tt.stderr)
		}
		if tt.exit == 0 && s.errs.String() != "" {
			t.Errorf("%s: stderr %q", tt.name, s.errs)
		}
	}
	b.mustAll(t, false)
}

func TestKillDryRunShows(t *testing.T) {
	b := mustBattlefield(t)
	s := newSession(0, "")
	s.mustIn(t, b.db, 0, b.args("--dry-run")...)
	if out := s.out.String(); strings.Count(out, "ESTAB") != 3 || !strings.HasSuffix(out, "\ndry run: 3 sockets of 10.99.0.1 would be destroyed\n") {
		t.Errorf("stdout:\n%s", out)
	}
	s = newSession(0, "")
	s.mustIn(t, b.db, 0, "sockets", "kill", "--peer", b.client.Addr4.String(), "--port", "5433", "--dry-run")
	if s.out.String() != "no such socket of 10.99.0.1: nothing to do\n" {
		t.Errorf("stdout:\n%s", s.out)
	}
	b.mustAll(t, false)
}

// A script gets one object per socket, and tells all from nothing by the exit code.
func TestKillJSON(t *testing.T) {
	b := mustBattlefield(t)
	for _, tt := range []struct{ flag, result string }{{"--dry-run", "dry run"}, {"--yes", "destroyed"}} {
		s := newSession(0, "")
		s.mustIn(t, b.db, 0, b.args("--json", tt.flag)...)
		n := 0
		for line := range strings.Lines(s.out.String()) {
			n++
			var k killObject
			if err := json.Unmarshal([]byte(line), &k); err != nil || k.Result != tt.result || k.Error != nil || *k.PeerAddress != b.client.Addr4 {
				t.Errorf("%s: %s, %v", tt.flag, line, err)
			}
		}
		if n != 3 || s.errs.String() != "" {
			t.Errorf("%s: %d lines, stderr %q", tt.flag, n, s.errs)
		}
	}
	b.mustAll(t, true)
}

// What a flag allows is done: own addresses, loopback, all ports; and the peer in
// another namespace, from outside of it.
func TestKillWhenTold(t *testing.T) {
	b := mustBattlefield(t)
	own := b.dual.mustConnect(t, b.db, b.db.Addr4, 0)
	s := newSession(0, "")
	s.mustIn(t, b.db, 0, "sockets", "kill", "--peer", b.db.Addr4.String(), "--port", "5432", "--own-address", "--yes")
	own.mustBeDead(t)
	b.mustAll(t, false)

	// It stands in for the namespace that the program was started in.
	s = newSession(0, "")
	s.mustIn(t, b.client, 0, "sockets", "kill", "--netns", b.db.Namespace(), "--peer", b.client.Addr4.String(), "--all-ports", "--yes")
	for _, p := range b.doomed {
		p.mustBeDead(t)
	}
	left := 0
	for _, p := range b.bystanders {
		switch remote := p.server.RemoteAddr().String(); {
		case strings.HasPrefix(remote, b.client.Addr4.String()+":"): // the client, on port 6000
			p.mustBeDead(t)
		case strings.HasPrefix(remote, b.db.Addr4.String()+":"): // out to the client
			pair{p.server, p.client}.mustBeDead(t)
		default:
			p.mustTalk(t)
			left++
		}
	}
	if left != 9 {
		t.Errorf("%d bystanders: want 9", left)
	}
}

// A peer that is alive comes back: what came after the question is not touched,
// even by the address and port of a connection that was shown, and that is said.
func TestKillTellsOfNewOnes(t *testing.T) {
	b := mustBattlefield(t)
	var late pair
	s := newSession(0, "y\n")
	s.stdin = readerFunc(func(p []byte) (int, error) {
		if late.client == nil {
			port := uint16(b.doomed[0].client.LocalAddr().(*net.TCPAddr).Port)
			b.doomed[0].mustReset(t)
			late = b.dual.mustConnect(t, b.client, b.db.Addr4, port)
			b.doomed = b.doomed[1:]
		}
		return copy(p, "y"), io.EOF
	})
	s.mustIn(t, b.db, 0, b.args()...)
	late.mustTalk(t)
	if !strings.HasSuffix(s.out.String(), "\n2 destroyed, 1 gone already\n") {
		t.Errorf("stdout:\n%s", s.out)
	}
	if !strings.HasSuffix(s.errs.String(), "agentctl: note: 1 socket of 10.99.0.1 came later and was not touched\n") {
		t.Errorf("stderr %q", s.errs)
	}
	b.mustAll(t, true)
}

// Ctrl-C at the question is a no, although nobody types anything.
func TestKillInterrupted(t *testing.T) {
	b := mustBattlefield(t)
	ctx, cancel := context.WithCancel(t.Context())
	silent, typing := io.Pipe()
	defer typing.Close()
	s := newSession(0, "y\n")
	s.stdin = silent
	ended := make(chan int, 1)
	go func() {
		_ = b.db.Do(func() error { ended <- s.run(ctx, b.args()...); return nil })
	}()
	agenttest.Eventually(t, limit, "the question", func() bool { return strings.Contains(s.errs.String(), "[y/N]") })
	cancel()
	if exit := <-ended; exit != exitRefused || !strings.HasSuffix(s.errs.String(), "\nagentctl: error: not confirmed: nothing was done\n") {
		t.Errorf("exit %d, stderr %q", exit, s.errs)
	}
	b.mustAll(t, false)
}

// readerFunc is a user who does something before the answer.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
