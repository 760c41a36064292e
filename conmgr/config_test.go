// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

var updateSample = flag.Bool("update-sample", false, "rewrite conmgr.conf.sample from the table")

const sampleIntro = `# conmgr.conf: the configuration of one conmgr, in its directory (CMDATA).
#
# Lines are "name = value"; what stands behind # is a comment. Strings with blanks,
# commas or colons are enclosed in ', and '' inside means one. Times are plain
# numbers of seconds or carry a unit: us, ms, s, min, h, d. Each name may be set
# once. "cm_ctl check" reads this file and tells every mistake in it.
#
# At least one instance is needed:
#
#backend_host0 = 'db1'
#backend_host1 = 'db2'
#
# The values behind the names below are the defaults.
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, warnings, err := ParseConfig("conmgr.conf", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Fatalf("warnings: %v", warnings)
	}
	return c
}

func TestConfigDefaultsAreTheSeeds(t *testing.T) {
	t.Parallel()
	want := &Config{
		File: "conmgr.conf", Port: 27546, ListenAddresses: []string{"localhost"},
		Backends:          []Backend{{Number: 0, Host: "db1", Port: 27500, WatchdogPort: 27545}},
		HeartbeatInterval: 10 * time.Second, HeartbeatTimeout: 20 * time.Second,
		HeartbeatConnectInterval: time.Second, HeartbeatConnectTimeout: 10 * time.Second,
		HeartbeatTransport: "tcp", LinkDownGrace: time.Second, LinkHints: true,
		LogStderr: true, SyslogFacility: 16, SyslogIdent: "conmgr", LogMinMessages: slog.LevelWarn,
		LoadBalance: "rtt", CloseOnRoleChange: true, CloseOnStalePrimary: true,
		ProxyTarget: ReadWrite, ProxySSLMode: SSLPrefer,
	}
	compare(t, want, mustParse(t, "backend_host0 = db1"))
}

func TestConfigEveryParameter(t *testing.T) {
	t.Parallel()
	got := mustParse(t, `
port = 1
listen_addresses = '127.0.0.1, ::1, *'
backend_host0 = 'db1.example.org'
backend_hostaddr0 = 'fe80::1%eth0'
backend_port0 = 5432
watchdog_port0 = 5433
heartbeat_interval = 50ms
heartbeat_timeout = 150ms
heartbeat_connect_interval = 2
heartbeat_connect_timeout = 1min
heartbeat_transport = TCP
agent_silence = fault
link_down_grace = 0
link_hints = off
log_destination = 'syslog, stderr'
syslog_facility = local7
syslog_ident = shop
log_min_messages = debug
max_connections = 100
load_balance = first
close_on_role_change = off
close_on_stale_primary = no
system_identifier = 18446744073709551615
proxy_listen = '27551:primary,27552:prefer-read'
proxy_allow = '192.0.2.0/24, 2001:db8::1'
proxy_target_session_attrs = standby
proxy_sslmode = verify-full
proxy_sslrootcert = '/etc/ca.pem'
`)
	want := &Config{
		File: "conmgr.conf", Port: 1, ListenAddresses: []string{"127.0.0.1", "::1", "*"},
		Backends: []Backend{{
			Number: 0, Host: "db1.example.org", HostAddr: netip.MustParseAddr("fe80::1%eth0"),
			Port: 5432, WatchdogPort: 5433,
		}},
		HeartbeatInterval: 50 * time.Millisecond, HeartbeatTimeout: 150 * time.Millisecond,
		HeartbeatConnectInterval: 2 * time.Second, HeartbeatConnectTimeout: time.Minute,
		HeartbeatTransport: "tcp", AgentSilenceIsFault: true,
		LogStderr: true, LogSyslog: true, SyslogFacility: 23, SyslogIdent: "shop", LogMinMessages: slog.LevelDebug,
		MaxConnections: 100, LoadBalance: "first", SystemIdentifier: 1<<64 - 1,
		ProxyListen:      []ProxyPort{{27551, Primary}, {27552, PreferStandby}},
		ProxyAllow:       []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
		ProxyTarget:      Standby,
		ProxySSLMode:     SSLVerifyFull,
		ProxySSLRootCert: "/etc/ca.pem",
	}
	compare(t, want, got)
}

func compare(t *testing.T, want, got *Config) {
	t.Helper()
	opts := []cmp.Option{
		cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// The seed's numbering: gaps, a port without a host, an address besides a name,
// and any order of lines.
func TestConfigNumbering(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       string
	}{
		{"pairs", "backend_host0='host0'\nbackend_port0=5432\nbackend_host1='host1'\nbackend_port1=2345", "0 host0:5432/27545, 1 host1:2345/27545"},
		{"mixed", "backend_host0='host0'\nbackend_host1='host1'\nbackend_port0=5432\nbackend_port1=2345", "0 host0:5432/27545, 1 host1:2345/27545"},
		{"gap", "backend_host0='host0'\nbackend_host2='host2'\nbackend_port0=5432\nbackend_port2=2345", "0 host0:5432/27545, 2 host2:2345/27545"},
		{"port without host", "backend_host0='host0'\nbackend_host2='host2'\nbackend_port1=5555\nwatchdog_port1=1", "0 host0:27500/27545, 2 host2:27500/27545"},
		{"address beats host", "backend_host0='host0'\nbackend_hostaddr0='192.0.2.1'", "0 host0=192.0.2.1:27500/27545"},
		{"address alone", "backend_hostaddr5='192.0.2.1'\nwatchdog_port5=9", "5 =192.0.2.1:27500/9"},
		{"falling order", "backend_port10=1\nbackend_host10=b\nbackend_host9=a", "9 a:27500/27545, 10 b:1/27545"},
		{"empty host is a gap", "backend_host0=''\nbackend_host1=b", "1 b:27500/27545"},
		{"high number", "backend_host9999=b", "9999 b:27500/27545"},
		{"address in host", "backend_host0='::1'", "0 ::1:27500/27545"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []string
			for _, b := range mustParse(t, tt.text).Backends {
				host := b.Host
				if b.HostAddr.IsValid() {
					host += "=" + b.HostAddr.String()
				}
				list = append(list, fmt.Sprintf("%d %s:%d/%d", b.Number, host, b.Port, b.WatchdogPort))
			}
			if got := strings.Join(list, ", "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	const host = "backend_host0 = db1\n"
	many := ""
	for i := range MaxInstances + 1 {
		many += fmt.Sprintf("backend_host%d = db%d\n", i, i)
	}
	for _, tt := range []struct{ text, want string }{
		{"", "conmgr.conf: no instance: expected at least one backend_host or backend_hostaddr, as backend_host0 = 'db1'"},
		{"backend_port0 = 5432", "conmgr.conf: no instance: "},
		{many, "conmgr.conf: 65 instances: expected at most 64"},
		{host + "port = 0", "conmgr.conf:2: port: 0 is out of range: expected 1 to 65535"},
		{host + "port = 65536", "conmgr.conf:2: port: 65536 is out of range: expected 1 to 65535"},
		{host + "backend_port0 = x", "conmgr.conf:2: backend_port0: expected a number from 1 to 65535"},
		{host + "backend_host00 = db2", "conmgr.conf:2: backend_host00: expected a number from 0 to 9999 without leading zeros"},
		{host + "backend_host = db2", "conmgr.conf:2: backend_host: expected a number"},
		{host + "backend_host99999 = db2", "conmgr.conf:2: backend_host99999: expected a number"},
		{host + host, "conmgr.conf:2: backend_host0 is already set in line 1"},
		{host + "backend_host1 = 'a b'", "conmgr.conf:2: backend_host1: expected one host name or address without port, found ' ' in it"},
		{host + "backend_host1 = 'a:1'", "conmgr.conf:2: backend_host1: expected one host name or address without port, found ':' in it"},
		{host + "backend_host1 = '/tmp'", "conmgr.conf:2: backend_host1: expected a host name or an address, found a Unix socket"},
		{host + "backend_host1 = " + strings.Repeat("a", 254), "conmgr.conf:2: backend_host1: expected a host name of at most 253 characters, found 254"},
		{host + "backend_host1 = 0.0.0.0", "conmgr.conf:2: backend_host1: expected the address of one host, found 0.0.0.0"},
		{host + "backend_hostaddr0 = db1", `conmgr.conf:2: backend_hostaddr0: expected an IPv4 or IPv6 address, found "db1"`},
		{host + "backend_hostaddr0 = ff02::1", "conmgr.conf:2: backend_hostaddr0: expected the address of one host, found ff02::1"},
		{host + "heartbeat_interval = 0", "conmgr.conf:2: heartbeat_interval: 0 is out of range: expected 10ms to 2147483s"},
		{host + "heartbeat_timeout = 9ms", "conmgr.conf:2: heartbeat_timeout: 9ms is out of range"},
		{host + "heartbeat_connect_interval = 25d", "conmgr.conf:2: heartbeat_connect_interval: 25d is out of range"},
		{host + "heartbeat_connect_timeout = soon", `conmgr.conf:2: heartbeat_connect_timeout: expected a time like 250ms, 2s or 1min, found "soon"`},
		{host + "heartbeat_transport = udp", "conmgr.conf:2: heartbeat_transport: udp needs a key: expected heartbeat_key_file"},
		{host + "heartbeat_key_file = keys", "conmgr.conf:2: heartbeat_key_file: expected an absolute path"},
		{host + "heartbeat_transport = sctp", "conmgr.conf:2: heartbeat_transport: expected tcp or udp"},
		{host + "link_down_grace = -1", "conmgr.conf:2: link_down_grace: -1 is out of range: expected 0 to 2147483s"},
		{host + "log_destination = ''", "conmgr.conf:2: log_destination: expected stderr, syslog or both"},
		{host + "log_destination = 'stderr, csvlog'", "conmgr.conf:2: log_destination: expected stderr or syslog"},
		{host + "syslog_facility = LOCAL8", "conmgr.conf:2: syslog_facility: expected LOCAL0, "},
		{host + "syslog_ident = 'a b'", "conmgr.conf:2: syslog_ident: expected a word in ASCII"},
		{host + "syslog_ident = ''", "conmgr.conf:2: syslog_ident: expected 1 to 48 characters, found 0"},
		{host + "log_min_messages = DEBUG1", "conmgr.conf:2: log_min_messages: expected DEBUG, INFO, NOTICE"},
		{host + "max_connections = -1", "conmgr.conf:2: max_connections: -1 is out of range: expected 0 to 2147483647"},
		{host + "agent_silence = ignore", "conmgr.conf:2: agent_silence: expected tolerate or fault"},
		{host + "load_balance = on", "conmgr.conf:2: load_balance: expected rtt, random or first"},
		{host + "close_on_role_change = maybe", "conmgr.conf:2: close_on_role_change: expected on or off"},
		{host + "system_identifier = -1", "conmgr.conf:2: system_identifier: expected the decimal number that pg_controldata shows"},
		{host + "listen_addresses = ''", "conmgr.conf:2: listen_addresses: expected localhost, other names, addresses or *"},
		{host + "listen_addresses = 'a b'", "conmgr.conf:2: listen_addresses: expected one host name"},
		{host + "proxy_listen = 27551", `conmgr.conf:2: proxy_listen: expected port:target as 27551:primary, found "27551"`},
		{host + "proxy_listen = '0:primary'", "conmgr.conf:2: proxy_listen: port: 0 is out of range"},
		{host + "proxy_listen = '1:leader'", `conmgr.conf:2: proxy_listen: unknown target "leader": expected any`},
		{host + "proxy_listen = '1:any,1:standby'", "conmgr.conf:2: proxy_listen: port 1 stands there twice"},
		{host + "proxy_listen = '" + strings.Repeat("1:any,", 16) + "2:any'", "conmgr.conf:2: proxy_listen: expected at most 16 ports, found 17"},
		{host + "proxy_listen = '27546:any'", "conmgr.conf:2: proxy_listen: port 27546 is conmgr's own port: expected another"},
		{host + "listen_addresses = '" + strings.Repeat("a,", 32) + "a'", "conmgr.conf:2: listen_addresses: 33 addresses with 1 ports are 33 sockets: expected at most 32"},
		{host + "proxy_allow = '192.0.2.1/24'", "conmgr.conf:2: proxy_allow: bits are set behind the mask of 192.0.2.1/24: expected 192.0.2.0/24"},
		{host + "proxy_allow = all", `conmgr.conf:2: proxy_allow: expected an address or block as 192.0.2.0/24, found "all"`},
		{host + "proxy_allow = '::ffff:192.0.2.1'", "conmgr.conf:2: proxy_allow: expected an address or block"},
		{host + "proxy_target_session_attrs = master", "conmgr.conf:2: proxy_target_session_attrs: unknown target"},
		{host + "proxy_sslmode = allow", "conmgr.conf:2: proxy_sslmode: expected disable, prefer, require, verify-ca or verify-full"},
		{host + "proxy_sslmode = verify-ca", "conmgr.conf:2: proxy_sslmode: verify-ca needs proxy_sslrootcert"},
		{host + "proxy_sslrootcert = system", "conmgr.conf:2: proxy_sslrootcert: system with proxy_sslmode prefer proves nothing: expected verify-full"},
		{host + "proxy_sslrootcert = ca.pem", "conmgr.conf:2: proxy_sslrootcert: expected an absolute path or system"},
		{host + "heartbeat_intervall = 5", "conmgr.conf:2: unknown parameter heartbeat_intervall, perhaps heartbeat_interval is meant"},
		{host + "prot = 5\nbackend_port0 = 'x", "conmgr.conf:3: backend_port0: unterminated quote: expected ' at the end of the value\nconmgr.conf:2: unknown parameter prot, perhaps port is meant"},
	} {
		c, _, err := ParseConfig("conmgr.conf", []byte(tt.text))
		if err == nil || c != nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%.80s:\n%v\nwant\n%s", tt.text, err, tt.want)
		}
	}
}

func TestConfigWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"backend_host0=a\nheartbeat_timeout=10", "conmgr.conf:2: heartbeat_timeout: 10s is not greater than heartbeat_interval (10s): "},
		{"backend_host0=a\nheartbeat_interval=1min", "conmgr.conf:2: heartbeat_interval: 1min is not less than heartbeat_timeout (20s): "},
		{"backend_host0=a\nbackend_host3=A", "conmgr.conf:2: backend_host3: instances 0 and 3 are both a port 27500"},
	} {
		c, warnings, err := ParseConfig("conmgr.conf", []byte(tt.text))
		if err != nil || c == nil || len(warnings) != 1 || !strings.HasPrefix(string(warnings[0]), tt.want) {
			t.Errorf("%s: %v, warnings %q, want %s", tt.text, err, warnings, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, ConfigName)
	if _, _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if _, _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "expected a regular file") {
		t.Errorf("directory: %v", err)
	}
	if err := os.WriteFile(path, []byte("backend_host0 = db1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := c.Rows()
	if want := (ConfigRow{Name: "backend_host0", Value: "db1", File: path + ":1", Context: "restart"}); rows[1] != want {
		t.Errorf("row %+v, want %+v", rows[1], want)
	}
	if want := (ConfigRow{Name: "port", Value: "27546", File: ConfigName, Default: "27546", Context: "restart"}); rows[0] != want {
		t.Errorf("row %+v, want %+v", rows[0], want)
	}
}

// The sample is the table in words: nobody can add a parameter and forget it there.
func TestSample(t *testing.T) {
	t.Parallel()
	want := configTable.AppendSample([]byte(sampleIntro))
	if *updateSample {
		if err := os.WriteFile("conmgr.conf.sample", want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("conmgr.conf.sample")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("conmgr.conf.sample is not what the table says; run go test ./conmgr -run TestSample -update-sample (-want +got):\n%s", diff)
	}
}

// With every setting of the sample switched on, the defaults must come out.
func TestSampleSetsDefaults(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("conmgr.conf.sample")
	if err != nil {
		t.Fatal(err)
	}
	body := string(text[len(sampleIntro):])
	on := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAllString(body, "$1")
	on = strings.Replace(on, "backend_host0 = ''", "backend_host0 = db1", 1)
	compare(t, mustParse(t, "backend_host0 = db1"), mustParse(t, on))
	for i := range configTable {
		name := strings.Replace(configTable[i].Name, "*", "0", 1)
		if !strings.Contains(body, "\n#"+name+" = ") {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestEveryParameterSaysWhatItCosts(t *testing.T) {
	t.Parallel()
	for i := range configTable {
		p := &configTable[i]
		if p.About == "" || p.File != ConfigName || p.Context != conf.Restart {
			t.Errorf("%s: incomplete entry", p.Name)
		}
		if p.Kind == conf.Duration && (p.Low == "" || p.High == "") {
			t.Errorf("%s: a time without its cost", p.Name)
		}
	}
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	two := "backend_host0=a\nbackend_host1=b\n"
	for _, tt := range []struct {
		text  string
		need  uint64
		limit uint64
		fits  bool
	}{
		{two, 77, 78, true},
		{two, 77, 77, false}, // not one application fits
		{two + "max_connections=100", 177, 177, true},
		{two + "max_connections=100", 177, 176, false},
		{two + "max_connections=100\nproxy_listen='1:any'", 277, 277, true},
		{two + "max_connections=100\nproxy_listen='1:any'", 277, 276, false},
	} {
		c := mustParse(t, tt.text)
		if got := Descriptors(c); got != tt.need {
			t.Errorf("%q: Descriptors = %d, want %d", tt.text, got, tt.need)
		}
		if err := c.CheckDescriptors(tt.limit); (err == nil) != tt.fits {
			t.Errorf("%q: CheckDescriptors(%d) = %v", tt.text, tt.limit, err)
		}
	}
	c := mustParse(t, two+"max_connections=100")
	if w, ok := c.DescriptorsWarning(276); !ok || !strings.Contains(string(w), "a limit of 276 carries 99 applications in proxy mode, fewer than max_connections = 100") {
		t.Errorf("warning %q", w)
	}
	if w, ok := c.DescriptorsWarning(277); ok {
		t.Errorf("warning %q", w)
	}
	want := "file descriptors: 177 needed (9 + 2 for each of 2 instances + 64 in reserve + 1 for each of max_connections = 100), limit 150: raise the limit (ulimit -n, LimitNOFILE) or lower max_connections"
	if err := c.CheckDescriptors(150); err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	// The figures of the design: a limit of 20,000 with 64 instances.
	full := &Config{Backends: make([]Backend, 64)}
	if left := full.DescriptorsLeft(20000); left < 19700 || full.DescriptorsLeft(100) != 0 {
		t.Errorf("%d descriptors left", left)
	}
	if limit, err := RaiseDescriptors(); err != nil || limit == 0 {
		t.Errorf("RaiseDescriptors = %d, %v", limit, err)
	}
}

// FuzzParseConfig: nothing in a file panics, and what is accepted keeps the
// promises of Config.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("backend_host0 = db1\nproxy_listen = '1:any'\nheartbeat_interval = 10ms"))
	f.Add([]byte("backend_hostaddr63 = ::1\nproxy_allow = '10.0.0.0/8'\nlog_destination = syslog"))
	if sample, err := os.ReadFile("conmgr.conf.sample"); err == nil {
		f.Add(regexp.MustCompile(`(?m)^#([a-z_0-9]+ =)`).ReplaceAll(sample, []byte("$1")))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, _, err := ParseConfig("conmgr.conf", text)
		if err != nil {
			return
		}
		if n := len(c.Backends); n < 1 || n > MaxInstances || c.Port == 0 || c.HeartbeatInterval < minPeriod || c.HeartbeatTimeout > maxPeriod {
			t.Errorf("accepted %+v", c)
		}
		for _, b := range c.Backends {
			if b.Host == "" && !b.HostAddr.IsValid() || b.Port == 0 || b.WatchdogPort == 0 {
				t.Errorf("accepted %+v", b)
			}
		}
		if len(c.Rows()) < len(configTable)-4 || c.SyslogFacility < 16 || !c.LogStderr && !c.LogSyslog {
			t.Errorf("accepted %+v", c)
		}
	})
}
