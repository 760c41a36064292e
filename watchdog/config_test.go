// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

func at(line int, name, value string) conf.Entry {
	return conf.Entry{Name: "watchdog." + name, Value: value, File: "postgresql.conf", Line: line}
}

func TestResolveDefaults(t *testing.T) {
	c, f := Resolve(Sources{}, nil)
	if diff := cmp.Diff(Findings{}, f); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	got := fmt.Sprintln(c.Port, c.ListenAddresses, c.CheckAttrInterval, c.MaxHeartbeatConnections, c.CheckAcceptInterval,
		c.AcceptTimeout, c.MinHeartbeatInterval, c.MaxHeartbeatTimeout, c.LinkDownGrace, c.LinkHints, c.OnTimeout, c.OnHang,
		c.OnDisconnect, c.OnShutdown, c.TerminateReplication, c.SharedAddress, c.DryRun, c.TerminateTimeout, c.FromInstance)
	want := "27545 [localhost] 1s 100 5s 2s 100ms 10m0s 5s true terminate wait wait terminate auto spare false 10s false\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}
	if !c.Clients.Contains(netip.MustParseAddr("192.0.2.9"), own) || c.Clients.Contains(netip.MustParseAddr("198.51.100.1"), own) {
		t.Error("clients is not samenet")
	}
	if !c.Protect.Contains(netip.MustParseAddr("::1"), own) || !c.Protect.Contains(netip.MustParseAddr("::ffff:192.0.2.7"), own) {
		t.Error("protect is not loopback and own addresses")
	}
}

func TestResolve(t *testing.T) {
	server := func(e ...conf.Entry) *ServerSettings {
		return &ServerSettings{Entries: e, ListenAddresses: "192.0.2.1, ::1", Port: 5432, MaxConnections: 300}
	}
	before, _ := Resolve(Sources{Server: server(at(1, "port", "28000"), at(2, "accept_timeout", "3s"), at(3, "on_hang", "ignore"))}, nil)
	blank, _ := Resolve(Sources{}, nil)
	for _, test := range []struct {
		name    string
		sources Sources
		old     *Config
		want    func(c *Config) any
		is      any
		finding string // in one of the findings; empty: there is none
	}{
		{"postgresql.conf beats the default", Sources{Server: server(at(1, "port", "28000"))}, nil, func(c *Config) any { return c.Port }, uint16(28000), ""},
		{"file beats postgresql.conf", Sources{Server: server(at(1, "dry_run", "on")), File: []conf.Entry{set("dry_run", "off")}}, nil,
			func(c *Config) any { return c.DryRun }, false, ""},
		{"flag beats file", Sources{File: []conf.Entry{set("on_hang", "ignore")}, Flags: []conf.Entry{set("on_hang", "terminate")}}, nil,
			func(c *Config) any { return c.OnHang }, "terminate", ""},
		{"pooler's ports", Sources{Server: server(at(1, "ports", "6432, 6433"))}, nil, func(c *Config) any { return fmt.Sprint(c.Ports) }, "[6432 6433]", ""},
		{"bad port", Sources{Server: server(at(1, "ports", "6432, 0"))}, nil, func(c *Config) any { return fmt.Sprint(c.Ports) }, "[]", "postgresql.conf:1: watchdog.ports"},
		{"too many ports", Sources{Server: server(at(1, "ports", strings.Repeat("1,", 32)+"2"))}, nil, func(c *Config) any { return fmt.Sprint(c.Ports) }, "[]", "at most 32 ports"},
		{"instance's listen_addresses", Sources{Server: server()}, nil, func(c *Config) any { return strings.Join(c.ListenAddresses, "|") }, "192.0.2.1|::1", ""},
		{"own listen_addresses", Sources{Server: server(at(1, "listen_addresses", "*"))}, nil, func(c *Config) any { return c.ListenAddresses[0] }, "*", ""},
		{"instance's max_connections", Sources{Server: server()}, nil, func(c *Config) any { return c.MaxHeartbeatConnections }, 300, ""},
		{"plain integer is milliseconds", Sources{Server: server(at(1, "check_attr_interval", "250"))}, nil,
			func(c *Config) any { return c.CheckAttrInterval }, 250 * time.Millisecond, ""},
		{"plain integer is seconds", Sources{Server: server(at(1, "link_down_grace", "5"))}, nil, func(c *Config) any { return c.LinkDownGrace }, 5 * time.Second, ""},
		{"one millisecond", Sources{Server: server(at(1, "check_attr_interval", "1"))}, nil, func(c *Config) any { return c.CheckAttrInterval }, time.Millisecond, ""},
		{"less than one millisecond", Sources{Server: server(at(7, "check_attr_interval", "0"))}, nil,
			func(c *Config) any { return c.CheckAttrInterval }, time.Second, "postgresql.conf:7: watchdog.check_attr_interval: 0 is out of range"},
		{"bad value at start", Sources{Server: server(at(7, "port", "70000"))}, nil, func(c *Config) any { return c.Port }, uint16(27545), "postgresql.conf:7: watchdog.port"},
		{"bad word", Sources{Server: server(at(7, "on_timeout", "kill"))}, nil, func(c *Config) any { return c.OnTimeout }, "terminate", "expected terminate, wait or ignore"},
		{"bad value in the file", Sources{Server: server(at(1, "on_hang", "ignore")), File: []conf.Entry{set("on_hang", "x")}}, nil,
			func(c *Config) any { return c.OnHang }, "ignore", "found"},
		{"bad value at run time", Sources{Server: server(at(2, "accept_timeout", "x"), at(1, "port", "28000"))}, before,
			func(c *Config) any { return c.AcceptTimeout }, 3 * time.Second, "postgresql.conf:2"},
		{"unset at run time", Sources{Server: server(at(1, "port", "28000"))}, before, func(c *Config) any { return c.OnHang }, "wait", ""},
		{"restart needed", Sources{Server: server(at(1, "port", "28001"))}, before, func(c *Config) any { return c.Port }, uint16(28000), "must be restarted"},
		{"first sight of the instance", Sources{Server: server(at(1, "port", "28001"))}, blank, func(c *Config) any { return c.Port }, uint16(28001), ""},
		{"first alias", Sources{Server: server(at(1, "check_status_interval", "20"))}, nil,
			func(c *Config) any { return c.CheckAttrInterval }, 20 * time.Millisecond, "is taken as watchdog.check_attr_interval"},
		{"second alias", Sources{Server: server(at(1, "max_hb_connections", "20"))}, nil, func(c *Config) any { return c.MaxHeartbeatConnections }, 20, "is taken as"},
		{"alias and name", Sources{Server: server(at(1, "max_hb_connections", "20"), at(2, "max_heartbeat_connections", "30"))}, nil,
			func(c *Config) any { return c.MaxHeartbeatConnections }, 30, "is ignored"},
		{"misspelt", Sources{Server: server(at(9, "on_timeot", "wait"))}, nil, func(c *Config) any { return c.OnTimeout }, "terminate", "perhaps watchdog.on_timeout"},
		{"bad client", Sources{Server: server(at(9, "clients", "db.example"))}, nil, func(c *Config) any { return c.Clients.sameNet }, true, "expected an address"},
		{"no client", Sources{Server: server(at(9, "clients", "192.0.2.0/24, samehost"))}, nil, func(c *Config) any { return c.Clients.sameNet }, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, f := Resolve(test.sources, test.old)
			if got := test.want(c); got != test.is {
				t.Errorf("got %v, want %v", got, test.is)
			}
			all := append(append(f.Errors, f.Warnings...), f.Notes...)
			if test.finding == "" && len(all) > 0 || test.finding != "" && (len(all) != 1 || !strings.Contains(all[0], test.finding)) {
				t.Errorf("findings %q, want %q", all, test.finding)
			}
		})
	}
}

func TestConfigRows(t *testing.T) {
	c, _ := Resolve(Sources{Server: &ServerSettings{Entries: []conf.Entry{at(3, "port", "28000")}}}, nil)
	rows := c.Rows()
	if len(rows) != len(Parameters()) {
		t.Fatalf("%d rows for %d parameters", len(rows), len(Parameters()))
	}
	want := conf.Row{Name: "watchdog.port", Value: "28000", File: "postgresql.conf:3", Default: "27545", Context: "restart"}
	if diff := cmp.Diff(want, rows[0]); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

func TestServerSettingsState(t *testing.T) {
	dir := t.TempDir()
	if s, err := LoadServerSettings(dir); s != nil || err != nil {
		t.Fatalf("nothing kept: %+v, %v", s, err)
	}
	s := &ServerSettings{
		Entries:         []conf.Entry{at(1, "port", "28000"), at(2, "on_hang", "bad"), at(3, "max_hb_connections", "7"), at(4, "nonsense", "1")},
		ListenAddresses: "*", Port: 5432, MaxConnections: 100, Warnings: []string{"x"},
	}
	for range 2 { // the second replaces the first
		if err := s.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := LoadServerSettings(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &ServerSettings{Entries: []conf.Entry{s.Entries[0], s.Entries[2]}, ListenAddresses: "*", Port: 5432, MaxConnections: 100}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(ServerSettings{})); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	path := filepath.Join(dir, settingsFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadServerSettings(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("damaged: %v", err)
	}
	if err := s.Save(filepath.Join(dir, "missing")); err == nil {
		t.Error("saved into a directory that does not exist")
	}
}

func TestServerSettingsInherit(t *testing.T) {
	s := &ServerSettings{Entries: []conf.Entry{at(1, "port", "1")}, Hidden: []string{"watchdog.dry_run"}}
	s.Inherit(nil)
	s.Inherit(&ServerSettings{Entries: []conf.Entry{at(1, "port", "2"), at(2, "dry_run", "on")}})
	if diff := cmp.Diff([]conf.Entry{at(1, "port", "1"), at(2, "dry_run", "on")}, s.Entries); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseAddresses(t *testing.T) {
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64"), netip.MustParsePrefix("127.0.0.1/8")}
	for _, test := range []struct{ words, in, out string }{
		{"", "", "192.0.2.7 ::1 127.0.0.1"},
		{"samehost", "192.0.2.7 2001:db8::7 ::ffff:192.0.2.7", "192.0.2.8 198.51.100.1"},
		{"samenet", "192.0.2.8 2001:db8::1 ::ffff:192.0.2.200", "198.51.100.1 2001:db9::1"},
		{"loopback", "127.9.9.9 ::1 ::ffff:127.0.0.1", "192.0.2.7"},
		{"all", "198.51.100.1 2001:db9::1 ::ffff:1.2.3.4", ""},
		{"198.51.100.0/24 2001:db9::1", "198.51.100.77 2001:db9::1 ::ffff:198.51.100.1", "198.51.101.1 2001:db9::2"},
		{"::ffff:198.51.100.1", "198.51.100.1", "198.51.100.2"},
		{"198.51.100.77/24", "198.51.100.1", ""},
		{"fe80::/10", "fe80::1%eth0", "::1"},
	} {
		a, err := ParseAddresses(strings.Fields(test.words))
		if err != nil {
			t.Errorf("%s: %v", test.words, err)
		}
		for want, list := range map[bool]string{true: test.in, false: test.out} {
			for _, s := range strings.Fields(list) {
				if a.Contains(netip.MustParseAddr(s), own) != want {
					t.Errorf("%q contains %s: %v", test.words, s, !want)
				}
			}
		}
	}
	for _, bad := range []string{"localhost", "1.2.3.4/33", "::ffff:1.2.3.0/120", "fe80::1%eth0", "SAMENET", "1.2.3", strings.Repeat("x", 1000)} {
		if _, err := ParseAddresses([]string{bad}); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func TestOwnPrefixes(t *testing.T) {
	own, err := OwnPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	var all Addresses
	all.sameHost = true
	for _, p := range own {
		if !all.Contains(p.Addr(), own) {
			t.Errorf("%v is not one of our own", p)
		}
	}
}

func FuzzLoadSettings(f *testing.F) {
	f.Add([]byte(`{"Entries":[{"Name":"watchdog.port","Value":"1"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := new(ServerSettings)
		if json.Unmarshal(data, s) != nil {
			return
		}
		if c, _ := Resolve(Sources{Server: s}, nil); c.Port == 0 || c.MaxHeartbeatConnections < 1 || c.AcceptTimeout <= 0 {
			t.Errorf("unusable: %+v", c)
		}
	})
}
