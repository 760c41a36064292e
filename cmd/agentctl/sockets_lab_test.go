// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// Listing and every filter, with IPv4 clients of a dual-stack listener.
func TestSocketsFilters(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "other", "db")
	client, other, db := lab.Host("client"), lab.Host("other"), lab.Host("db")
	dual, single := mustListen(t, db, "tcp", "[::]:5432"), mustListen(t, db, "tcp4", db.Addr4.String()+":6000")
	four, six := dual.mustConnect(t, client, db.Addr4, 0), dual.mustConnect(t, client, db.Addr6, 0)
	others, single4 := dual.mustConnect(t, other, db.Addr4, 0), single.mustConnect(t, client, db.Addr4, 0)
	closed := single.mustConnect(t, other, db.Addr4, 0)
	if err := closed.client.Close(); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, limit, "CLOSE_WAIT", func() bool { return len(mustList(t, db, "--state", "close-wait")) == 1 })
	all := []pair{four, six, others, single4, closed}
	for _, tt := range []struct {
		options string
		want    []pair
	}{
		{"", all},
		{"--port 5432", []pair{four, six, others}},
		{"--port 5432 --port 6000", all},
		{"--port 5999-6001", []pair{single4, closed}},
		{"--port 5433", nil},
		{"--peer " + client.Addr4.String(), []pair{four, single4}},
		{"--peer ::ffff:" + client.Addr4.String(), []pair{four, single4}},
		{"--peer " + client.Addr4.String() + " --peer " + client.Addr6.String(), []pair{four, six, single4}},
		{"--peer 10.99.0.0/24 --port 5432", []pair{four, others}},
		{"--peer fd99::/64", []pair{six}},
		{"--peer 192.0.2.1", nil},
		{"--local " + db.Addr6.String(), []pair{six}},
		{"--local " + db.Addr4.String() + " --port 6000", []pair{single4, closed}},
		{"--state established --port 6000", []pair{single4}},
		{"--state ESTAB,Close_Wait --port 6000", []pair{single4, closed}},
		{"--state close-wait", []pair{closed}},
		{"--state syn-sent", nil},
	} {
		var want []string
		for _, p := range tt.want {
			want = append(want, p.name())
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, peersOf(mustList(t, db, strings.Fields(tt.options)...))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.options, diff)
		}
	}
	if got := peersOf(mustList(t, db, "--state", "listen")); !slices.Equal(got, []string{"*", "*"}) {
		t.Errorf("listening: %q", got)
	}
	o := mustList(t, db, "--peer", client.Addr4.String(), "--port", "5432")[0]
	if o.Family != "IPv6" || o.State != "ESTABLISHED" || o.LocalAddress != db.Addr4 || o.LocalPort != 5432 || o.Cookie == "0" ||
		o.RTT == nil || *o.RTT <= 0 || *o.RTT > 1000 || o.LastAckReceived == nil || o.UID == nil || *o.UID != 0 || *o.User != "root" ||
		len(o.Processes) != 1 || o.Processes[0].PID != os.Getpid() || o.Processes[0].Name == "" || o.Backend != nil {
		t.Errorf("socket %+v", o)
	}
}

func TestSocketsTable(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	p := mustListen(t, db, "tcp", "[::]:5432").mustConnect(t, client, db.Addr4, 0)
	for _, columns := range []int{0, 80, 200} {
		s := newSession(columns, "")
		s.mustIn(t, db, 0, "sockets", "--port", "5432")
		lines := strings.Split(strings.TrimSuffix(s.out.String(), "\n"), "\n")
		if len(lines) < 2 || !strings.HasPrefix(lines[0], "state  local") || !strings.HasPrefix(lines[1], "ESTAB  ") ||
			!strings.Contains(lines[1], ".2:5432  "+p.name()+"  ") {
			t.Fatalf("%d columns:\n%s", columns, s.out)
		}
		if columns > 0 && (len(lines) != 3 || !strings.HasPrefix(lines[2], "1 socket")) || columns == 0 && len(lines) != 2 {
			t.Errorf("%d columns:\n%s", columns, s.out)
		}
		checkWidth(t, fmt.Sprint(columns), s.out.String(), columns)
		if whole := columns != 80; strings.Contains(lines[0], "rto") != whole || strings.Contains(lines[0], "backend") {
			t.Errorf("%d columns: headings %q", columns, lines[0])
		}
		if s.errs.String() != "" {
			t.Errorf("%d columns: stderr %q", columns, s.errs)
		}
	}
}

// Another namespace is looked into by name and by path; interfaces of zones are
// those of the other namespace.
func TestSocketsNetns(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	mustTool(t, client, "ip", "address", "add", "fe80::1/64", "dev", "eth0", "nodad")
	mustTool(t, db, "ip", "link", "add", "wire9", "type", "veth", "peer", "name", "wire8")
	p := mustListen(t, db, "tcp", "[::]:5432").mustConnect(t, client, db.Addr4, 0)
	for _, netns := range []string{db.Namespace(), "/run/netns/" + db.Namespace(), "/var/run/netns/../netns/" + db.Namespace()} {
		// Neither from the machine's namespace nor from the client's.
		stdout, _ := mustRun(t, 0, "sockets", "--json", "--netns", netns)
		if got := peersOf(mustObjects(t, stdout)); !slices.Equal(got, []string{p.name()}) {
			t.Errorf("%s: sockets of %q, want of %s", netns, got, p.name())
		}
		if got := mustList(t, client, "--netns", netns, "--port", "5432"); len(got) != 1 {
			t.Errorf("%s from the client: %d sockets", netns, len(got))
		}
	}
	mustRun(t, 0, "sockets", "--netns", db.Namespace(), "--peer", "fe80::1%wire9")
	_, stderr := mustRun(t, 2, "sockets", "--peer", "fe80::1%wire9")
	if !strings.Contains(stderr, `zone "wire9": expected an interface's name or index`) {
		t.Errorf("zone of another namespace: %q", stderr)
	}
	for netns, want := range map[string]string{
		"nonesuch": "network namespace nonesuch: open /run/netns/nonesuch: no such file or directory", "/proc/self/ns/uts": "this is no network namespace",
		"/dev/null": "this is no network namespace",
	} {
		if _, stderr := mustRun(t, 1, "sockets", "--netns", netns); !strings.Contains(stderr, want) {
			t.Errorf("%s: %q, want %s", netns, stderr, want)
		}
	}
}

// Sockets on a link-local address are shown with their interface.
func TestSocketsLinkLocal(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	mustTool(t, client, "ip", "address", "add", "fe80::1/64", "dev", "eth0", "nodad")
	mustTool(t, db, "ip", "address", "add", "fe80::2/64", "dev", "eth0", "nodad")
	l := mustListen(t, db, "tcp", "[::]:5432")
	conn, err := client.Dial(t.Context(), "tcp", "[fe80::2%eth0]:5432")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	for _, peer := range []string{"fe80::1", "fe80::1%eth0", "fe80::/10"} {
		s := newSession(0, "")
		s.mustIn(t, db, 0, "sockets", "--peer", peer)
		if !strings.Contains(s.out.String(), "[fe80::2%eth0]:5432  [fe80::1%eth0]:") {
			t.Errorf("--peer %s:\n%s", peer, s.out)
		}
	}
	if got := mustList(t, db, "--peer", "fe80::1%lo"); len(got) != 0 {
		t.Errorf("on another interface: %+v", got)
	}
	if got := mustList(t, db, "--peer", "fe80::1%eth0"); len(got) != 1 || got[0].Interface == nil || *got[0].Interface != "eth0" {
		t.Errorf("sockets %+v", got)
	}
}

// A pipe gets a block for each look, a terminal one picture drawn over the other.
func TestSocketsWatch(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	p := mustListen(t, db, "tcp", "[::]:5432").mustConnect(t, client, db.Addr4, 0)
	for _, tt := range []struct {
		columns int
		option  string
		each    string // stands in each look once
	}{
		{0, "--watch=100ms", "  1 socket\nstate  local"},
		{80, "--watch=100ms", cursorHome},
		{80, "--json", `"state":"ESTABLISHED"`},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSession(tt.columns, "")
		ended := make(chan int, 1)
		args := []string{"sockets", "--port", "5432", "--watch=100ms", tt.option}
		go func() {
			_ = db.Do(func() error { ended <- s.run(ctx, args...); return nil })
		}()
		agenttest.Eventually(t, limit, "three looks", func() bool { return strings.Count(s.out.String(), tt.each) >= 3 })
		cancel()
		if exit := <-ended; exit != 0 || s.errs.String() != "" {
			t.Errorf("%v: exit %d, stderr %q", tt, exit, s.errs)
		}
		out := s.out.String()
		if strings.Count(out, p.name()) < 3 && tt.option != "--json" {
			t.Errorf("%v: the socket is not in each look: %q", tt, out)
		}
		if onTerminal := tt.each == cursorHome; strings.Contains(out, "\x1b") != onTerminal || strings.Count(out, clearScreen) > 1 {
			t.Errorf("%v: %q", tt, out)
		}
		if tt.columns == 0 && !strings.Contains(out, "\n\n2026-11-25T12:00:00+01:00  1 socket\n") {
			t.Errorf("blocks are not apart: %q", out)
		}
	}
}
