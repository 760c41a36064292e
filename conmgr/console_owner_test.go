// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The kernel names the owner of exactly the socket asked for.
func TestTCPOwner(t *testing.T) {
	lookup, err := openTCPOwners()
	if err != nil {
		t.Fatal(err)
	}
	defer lookup.close()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("not here: %v", err)
			continue
		}
		t.Cleanup(func() { _ = l.Close() })
		// A dual-stack listener meets an IPv4 client as ::ffff:a.b.c.d.
		at := strings.Replace(l.Addr().String(), "[::]", "127.0.0.1", 1)
		mustDial(t, "tcp", at)
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		peer, local := endsOf(conn)
		if o := lookup.lookup(peer, local); !o.known || o.uid != uint32(os.Getuid()) {
			t.Errorf("%s: owner %+v, want this user", address, o)
		}
		nobody := netip.AddrPortFrom(peer.Addr(), 1)
		if o := lookup.lookup(nobody, local); o.known {
			t.Errorf("%s: a socket that is not there belongs to %+v", address, o)
		}
	}
}

func TestSees(t *testing.T) {
	own := uint32(os.Getuid())
	stranger, other := owner{known: true, uid: own + 1000}, owner{known: true, uid: own + 2000}
	for _, tt := range []struct {
		name string
		kind AppKind
		me   owner
		row  app
		want bool
	}{
		{"own row of nobody known", KindConsole, owner{}, app{id: 1}, true},
		{"nobody known", KindConsole, owner{}, app{id: 2}, false},
		{"root", KindConsole, owner{known: true}, app{id: 2, owner: other}, true},
		{"conmgr's user", KindConsole, owner{known: true, uid: own}, app{id: 2, owner: other}, true},
		{"conmgr.sock", kindControl, owner{}, app{id: 2, owner: other}, true},
		{"stranger, own row", KindConsole, stranger, app{id: 2, owner: stranger}, true},
		{"stranger, another's row", KindConsole, stranger, app{id: 2, owner: other}, false},
		{"stranger, a row of nobody known", KindConsole, stranger, app{id: 2}, false},
	} {
		c := &console{app: &app{id: 1, kind: tt.kind}}
		if got := c.sees(tt.me, &tt.row); got != tt.want {
			t.Errorf("%s: sees %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Another user sees its own rows only.
func TestShowApplicationsOfStranger(t *testing.T) {
	if os.Getuid() != 0 {
		agenttest.Skip(t, "root, to become another user")
	}
	path, err := exec.LookPath("psql")
	if err != nil {
		agenttest.Skip(t, "psql")
	}
	f := mustServe(t, nil)
	mustConnect(t, f.tcp())
	const uid = 65534
	cmd := exec.Command(path, "-XAtc", "SHOW APPLICATIONS", fmt.Sprintf("host=127.0.0.1 port=%d user=x dbname=conmgr", f.Port()))
	cmd.Dir, cmd.Env = "/", []string{"HOME=/", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 1 || !strings.Contains(lines[0], fmt.Sprintf("|%d|", uid)) {
		t.Errorf("a stranger saw %q, %v", out, err)
	}
	eventually(t, "the stranger has gone", func() bool { return f.Apps().Count() == 1 })
	all := psql(t, "127.0.0.1", f.Port(), "conmgr", "-tc", "SHOW APPLICATIONS")
	if n := strings.Count(all, "console|127.0.0.1|"); n != 2 {
		t.Errorf("root saw %d rows, want 2:\n%s", n, all)
	}
}

// The ring keeps the latest events, oldest first.
func TestEventRing(t *testing.T) {
	var r eventRing
	for i := range maxEvents + 3 {
		r.add(Event{Applications: i})
	}
	list := r.all()
	if len(list) != maxEvents || list[0].Applications != 3 || list[maxEvents-1].Applications != maxEvents+2 {
		t.Errorf("%d events, %d to %d", len(list), list[0].Applications, list[len(list)-1].Applications)
	}
}

func TestThrottle(t *testing.T) {
	l := throttle{every: time.Minute}
	now := time.Now()
	if _, ok := l.allow(now); !ok {
		t.Error("the first line was held back")
	}
	for range 3 {
		if _, ok := l.allow(now.Add(time.Second)); ok {
			t.Error("a line within the minute came through")
		}
	}
	if n, ok := l.allow(now.Add(time.Minute)); !ok || n != 3 {
		t.Errorf("after a minute: %d suppressed, %v", n, ok)
	}
}
