// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// Limits of a configuration.
const (
	MaxInstances  = 64 // backend_host*, backend_hostaddr*
	MaxProxyPorts = 16 // proxy_listen
	MaxListeners  = 32 // listen_addresses times (port and proxy_listen)
)

// Backend is one configured instance.
type Backend struct {
	Number       int        // the N of backend_hostN
	Host         string     // backend_hostN, empty when only the address is set
	HostAddr     netip.Addr // backend_hostaddrN; when valid it is dialled, Host is not resolved
	Port         uint16     // backend_portN
	WatchdogPort uint16     // watchdog_portN
}

// ProxyPort is one pass-through port of proxy_listen.
type ProxyPort struct {
	Port   uint16
	Target Target
}

// Config is what conmgr.conf says, checked. It is plain values and is not changed
// after [Load].
type Config struct {
	File            string // as given to Load
	Port            uint16
	ListenAddresses []string // names, addresses or "*"; at least one
	Backends        []Backend

	HeartbeatInterval        time.Duration
	HeartbeatTimeout         time.Duration
	HeartbeatConnectInterval time.Duration
	HeartbeatConnectTimeout  time.Duration
	HeartbeatTransport       string // tcp or udp
	HeartbeatKeyFile         string // empty: no key
	LinkDownGrace            time.Duration
	LinkHints                bool
	AgentSilenceIsFault      bool // agent_silence = fault

	LogStderr      bool
	LogSyslog      bool
	SyslogFacility int // 16 to 23: LOCAL0 to LOCAL7
	SyslogIdent    string
	LogMinMessages slog.Level

	MaxConnections      int64  // 0: as many as descriptors allow
	LoadBalance         string // rtt, random or first
	CloseOnRoleChange   bool
	CloseOnStalePrimary bool
	SystemIdentifier    uint64 // 0: learn it

	ProxyListen      []ProxyPort
	ProxyAllow       []netip.Prefix // besides loopback
	ProxyTarget      Target
	ProxySSLMode     SSLMode
	ProxySSLRootCert string // empty, system, or an absolute path

	MetricsListen []conf.Endpoint // empty: nowhere

	values *conf.Values
}

// Warning is something in a configuration that is accepted and probably a
// mistake. It starts with "file:line: " where a line is to blame.
type Warning string

// ConfigRow is one line of SHOW CONFIG.
type ConfigRow = conf.Row

// Rows returns every parameter, with what is in use and where that was set, in the
// order of the sample file. It returns nil for a Config that Load did not make.
func (c *Config) Rows() []ConfigRow {
	if c.values == nil {
		return nil
	}
	return c.values.Rows()
}

// Load reads a conmgr.conf. The error tells every mistake in the file, each with
// file, line and what was expected, one per line of text.
func Load(path string) (*Config, []Warning, error) {
	// Before the open, which would wait for the writer of a named pipe.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("open configuration %s: expected a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, conf.MaxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read configuration: %w", err)
	}
	return ParseConfig(path, text)
}

// ParseConfig is [Load] for a text that was read already; file is only a name for
// errors.
func ParseConfig(file string, text []byte) (*Config, []Warning, error) {
	entries, parseErr := conf.Parse(file, text)
	values, readErr := configTable.Read(entries)
	if err := errors.Join(parseErr, readErr); err != nil {
		return nil, nil, err
	}
	c := fromValues(file, values)
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	return c, c.warnings(), nil
}

func fromValues(file string, v *conf.Values) *Config {
	c := &Config{
		File:                     file,
		Port:                     uint16(v.Int("port")),
		ListenAddresses:          v.List("listen_addresses"),
		Backends:                 backends(v),
		HeartbeatInterval:        v.Duration("heartbeat_interval"),
		HeartbeatTimeout:         v.Duration("heartbeat_timeout"),
		HeartbeatConnectInterval: v.Duration("heartbeat_connect_interval"),
		HeartbeatConnectTimeout:  v.Duration("heartbeat_connect_timeout"),
		HeartbeatTransport:       v.Text("heartbeat_transport"),
		HeartbeatKeyFile:         v.Text("heartbeat_key_file"),
		LinkDownGrace:            v.Duration("link_down_grace"),
		LinkHints:                v.Bool("link_hints"),
		AgentSilenceIsFault:      v.Text("agent_silence") == "fault",
		SyslogFacility:           16 + slices.Index(syslogFacilities, v.Text("syslog_facility")),
		SyslogIdent:              v.Text("syslog_ident"),
		MaxConnections:           v.Int("max_connections"),
		LoadBalance:              v.Text("load_balance"),
		CloseOnRoleChange:        v.Bool("close_on_role_change"),
		CloseOnStalePrimary:      v.Bool("close_on_stale_primary"),
		ProxySSLRootCert:         v.Text("proxy_sslrootcert"),
		values:                   v,
	}
	for _, destination := range v.List("log_destination") {
		c.LogStderr = c.LogStderr || strings.EqualFold(destination, "stderr")
		c.LogSyslog = c.LogSyslog || strings.EqualFold(destination, "syslog")
	}
	// The table's checks have accepted these texts.
	c.LogMinMessages, _ = ParseLevel(v.Text("log_min_messages"))
	c.SystemIdentifier, _ = strconv.ParseUint(v.Text("system_identifier"), 10, 64)
	c.MetricsListen, _ = conf.ParseEndpoints(strings.Join(v.List("metrics_listen"), ","))
	c.ProxyListen, _ = parseProxyListen(strings.Join(v.List("proxy_listen"), ","))
	c.ProxyAllow, _ = parseProxyAllow(strings.Join(v.List("proxy_allow"), ","))
	c.ProxyTarget, _ = ParseTarget(v.Text("proxy_target_session_attrs"))
	c.ProxySSLMode, _ = ParseSSLMode(v.Text("proxy_sslmode"))
	return c
}

// backends applies the seed's numbering: an instance exists when its host or
// address is set; any other number is a gap.
func backends(v *conf.Values) []Backend {
	numbers := append(v.Numbers("backend_host*"), v.Numbers("backend_hostaddr*")...)
	slices.Sort(numbers)
	var list []Backend
	for _, n := range slices.Compact(numbers) {
		b := Backend{
			Number:       n,
			Host:         v.Text(numbered("backend_host", n)),
			Port:         uint16(v.Int(numbered("backend_port", n))),
			WatchdogPort: uint16(v.Int(numbered("watchdog_port", n))),
		}
		b.HostAddr, _ = netip.ParseAddr(v.Text(numbered("backend_hostaddr", n)))
		if b.Host != "" || b.HostAddr.IsValid() {
			list = append(list, b)
		}
	}
	return list
}

func numbered(prefix string, n int) string { return prefix + strconv.Itoa(n) }

// check looks at what one parameter alone cannot tell.
func (c *Config) check() error {
	var errs []error
	if len(c.Backends) == 0 {
		errs = append(errs, &conf.Error{File: c.File, Text: "no instance: expected at least one backend_host or backend_hostaddr, as backend_host0 = 'db1'"})
	}
	if len(c.Backends) > MaxInstances {
		errs = append(errs, &conf.Error{File: c.File, Text: fmt.Sprintf("%d instances: expected at most %d", len(c.Backends), MaxInstances)})
	}
	for _, p := range c.ProxyListen {
		if p.Port == c.Port {
			errs = append(errs, c.values.Fail("proxy_listen", "port %d is conmgr's own port: expected another", p.Port))
		}
	}
	if n := len(c.ListenAddresses) * (1 + len(c.ProxyListen)); n > MaxListeners {
		errs = append(errs, c.values.Fail("listen_addresses", "%d addresses with %d ports are %d sockets: expected at most %d",
			len(c.ListenAddresses), 1+len(c.ProxyListen), n, MaxListeners))
	}
	if c.ProxySSLMode >= SSLVerifyCA && c.ProxySSLRootCert == "" {
		errs = append(errs, c.values.Fail("proxy_sslmode", "%s needs proxy_sslrootcert: expected a file or system", c.ProxySSLMode))
	}
	if c.ProxySSLRootCert == systemRoots && c.ProxySSLMode != SSLVerifyFull { // as libpq: anybody can have such a certificate
		errs = append(errs, c.values.Fail("proxy_sslrootcert", "system with proxy_sslmode %s proves nothing: expected verify-full", c.ProxySSLMode))
	}
	if c.HeartbeatTransport == "udp" && c.HeartbeatKeyFile == "" {
		errs = append(errs, c.values.Fail("heartbeat_transport", "udp needs a key: expected heartbeat_key_file"))
	}
	return errors.Join(errs...)
}

func (c *Config) warnings() []Warning {
	var list []Warning
	warn := func(name, format string, args ...any) {
		list = append(list, Warning(c.values.Fail(name, format, args...).Error()))
	}
	if c.HeartbeatTimeout <= c.HeartbeatInterval {
		const means = "instances will be judged dead all the time"
		interval, timeout := conf.FormatDuration(c.HeartbeatInterval), conf.FormatDuration(c.HeartbeatTimeout)
		if c.values.Origin("heartbeat_timeout") != "" {
			warn("heartbeat_timeout", "%s is not greater than heartbeat_interval (%s): %s", timeout, interval, means)
		} else {
			warn("heartbeat_interval", "%s is not less than heartbeat_timeout (%s): %s", interval, timeout, means)
		}
	}
	seen := make(map[string]int)
	for _, b := range c.Backends {
		name, host := numbered("backend_host", b.Number), b.Host
		if b.HostAddr.IsValid() {
			name, host = numbered("backend_hostaddr", b.Number), b.HostAddr.String()
		}
		key := fmt.Sprintf("%s port %d", strings.ToLower(host), b.Port)
		if first, ok := seen[key]; ok {
			warn(name, "instances %d and %d are both %s", first, b.Number, key)
			continue
		}
		seen[key] = b.Number
	}
	return list
}
