// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// ConfigName is the name of the configuration file in conmgr's directory.
const ConfigName = "conmgr.conf"

// Bounds of durations. The upper one is PostgreSQL's INT_MAX milliseconds in
// whole seconds; it fits the 32 bits of milliseconds on the wire.
const (
	minPeriod = 10 * time.Millisecond
	maxPeriod = 2147483 * time.Second
)

// Parameters returns the table of conmgr.conf, in the order in which it is shown.
func Parameters() conf.Table { return configTable }

// configTable is every parameter of conmgr.conf: the seed's, then ours.
var configTable = withFile(append(seedTable(), ownTable()...))

func withFile(t conf.Table) conf.Table {
	for i := range t {
		t[i].File = ConfigName
	}
	return t
}

func portParam(name, def, about string) conf.Param {
	return conf.Param{Name: name, Kind: conf.Integer, Default: def, Min: 1, Max: 65535, About: about}
}

func period(name, def string, lo time.Duration, about, low, high string) conf.Param {
	return conf.Param{
		Name: name, Kind: conf.Duration, Default: def,
		Min: int64(lo), Max: int64(maxPeriod), Unit: time.Second,
		About: about, Low: low, High: high,
	}
}

// seedTable has the parameters of the seed's guide, section 2.1.2, in its order.
func seedTable() conf.Table {
	return conf.Table{
		portParam("port", "27546", "Port on which applications reach conmgr."),
		{
			Name: "backend_host*", Kind: conf.String, Check: checkHost,
			About: "Host name or address of an instance. The number at the end of the name is the instance's; numbers start at 0 and may have gaps. " +
				"An instance exists when its backend_host or backend_hostaddr is set and not empty; at most 64 of them. Names are resolved in the background.",
		},
		{
			Name: "backend_hostaddr*", Kind: conf.String, Check: checkAddr,
			About: "Address of an instance, IPv4 or IPv6: nothing is resolved. It is used instead of backend_host when both are set; TLS still checks the name in backend_host.",
		},
		portParam("backend_port*", "27500", "Port of the instance's postmaster. Without a host of the same number it has no effect."),
		portParam("watchdog_port*", "27545", "Port of the instance's watchdog, as watchdog.port in its postgresql.conf. Without a host of the same number it has no effect."),
		period("heartbeat_interval", "10s", minPeriod,
			"Time between two beats; both ends send, and the watchdog uses the same value for this conmgr.",
			"more packets, and a watchdog refuses less than its watchdog.min_heartbeat_interval (100ms).",
			"a late peer is noticed late, and fewer lost beats fit into heartbeat_timeout."),
		period("heartbeat_timeout", "20s", minPeriod,
			"Silence after which the other end is judged dead. Three to five intervals are a good value; not more than one interval is accepted and always judged dead.",
			"a lost packet or a busy host ends sessions that were healthy.",
			"applications wait that long for a dead server, and locks of a dead client stay that long."),
		period("heartbeat_connect_interval", "1s", minPeriod,
			"Pause between two attempts to reach the watchdog of an instance.",
			"a host whose watchdog is not running is asked needlessly often.",
			"a started instance is noticed late."),
		period("heartbeat_connect_timeout", "10s", minPeriod,
			"Longest time for one attempt to reach a watchdog, its first answer included.",
			"a slow path never gets an answer in time.",
			"an attempt that was begun while the host was down delays the next one."),
		{
			Name: "log_destination", Kind: conf.List, Default: "stderr", Check: checkLogDestination,
			About: "Where messages go: stderr, syslog, or both. A detached conmgr writes stderr to conmgr.log in its directory.",
		},
		{
			Name: "syslog_facility", Kind: conf.Enum, Default: "LOCAL0", Words: syslogFacilities,
			About: "Facility of messages to syslog.",
		},
		{
			Name: "syslog_ident", Kind: conf.String, Default: "conmgr", Check: checkIdent,
			About: "Program name in messages to syslog.",
		},
		{
			Name: "log_min_messages", Kind: conf.Enum, Default: "WARNING", Words: levelNames(),
			About: "Lowest level of messages that are written; each level includes those behind it in the list.",
			Low:   "DEBUG writes a line per packet.",
			High:  "above LOG, starts, stops and faults are not recorded.",
		},
		{
			Name: "max_connections", Kind: conf.Integer, Default: "0", Min: 0, Max: 1<<31 - 1,
			About: "Most applications at a time; 0 means as many as file descriptors allow. One more is closed without a message.",
			Low:   "applications are turned away.",
			High:  "conmgr does not start when the limit on file descriptors (ulimit -n) cannot carry it.",
		},
	}
}

// ownTable has the parameters that the seed does not know.
func ownTable() conf.Table {
	return conf.Table{
		{
			Name: "listen_addresses", Kind: conf.List, Default: "localhost", Check: checkListen,
			About: "Addresses on which applications reach conmgr: names, addresses, or * for all.",
			High:  "an application on another host is not told when the path to conmgr dies.",
		},
		{
			Name: "heartbeat_transport", Kind: conf.Enum, Default: "tcp", Words: []string{"tcp", "udp"},
			About: "What carries the heartbeat. udp needs a key file on both ends, and goes on over paths that lose packets.",
		},
		{
			Name: "heartbeat_key_file", Kind: conf.String, Check: checkKeyFile,
			About: "File with the key that heartbeats are proven with, as cm_ctl keygen writes it; the first line counts. Read again at SIGHUP.",
			Low:   "heartbeats without a key can be forged by whoever can send from an address in watchdog.clients.",
		},
		{
			Name: "agent_silence", Kind: conf.Enum, Default: "tolerate", Words: []string{"tolerate", "fault"},
			About: "What the silence of a watchdog means while its instance still answers: tolerate keeps the applications and marks the instance unmonitored, fault disconnects them.",
		},
		period("link_down_grace", "1s", 0,
			"How long a peer may stay silent after the kernel reported that the link is down; 0 believes the report at once.",
			"a short flap of the link ends all sessions over it.",
			"an unplugged cable is noticed late, at heartbeat_timeout at the latest."),
		{
			Name: "link_hints", Kind: conf.Bool, Default: "on",
			About: "Ask peers at once when the kernel reports that the link to them is lost. Off leaves it to heartbeat_timeout.",
		},
		{
			Name: "load_balance", Kind: conf.Enum, Default: "rtt", Words: []string{"rtt", "random", "first"},
			About: "Which of several instances with the wanted attribute is taken: the nearest by round trip, any, or the one with the lowest number.",
		},
		{
			Name: "close_on_role_change", Kind: conf.Bool, Default: "on",
			About: "End sessions whose instance no longer has the attribute they asked for. Off leaves, for example, writers on a former primary.",
		},
		{
			Name: "close_on_stale_primary", Kind: conf.Bool, Default: "on",
			About: "End sessions on a primary that lost to another primary with a higher timeline. Off leaves writers on the loser.",
		},
		{
			Name: "system_identifier", Kind: conf.String, Default: "0", Check: checkSystemIdentifier,
			About: "System identifier that every instance must have (pg_controldata shows it); 0 learns it from the first primary and keeps it in the directory.",
		},
		{
			Name: "proxy_listen", Kind: conf.List, Check: checkProxyListen,
			About: "Pass-through ports, each with what it leads to, as '27551:primary, 27552:standby'; at most 16. Targets: any, read-write, read-only, primary, standby, prefer-standby.",
		},
		{
			Name: "proxy_allow", Kind: conf.List, Check: checkProxyAllow,
			About: "Addresses (CIDR) besides loopback that pass-through and proxied connections are taken from. The instance sees conmgr's address, so whoever is listed here inherits conmgr's lines of pg_hba.conf.",
		},
		{
			Name: "proxy_target_session_attrs", Kind: conf.String, Default: "read-write", Check: checkTarget,
			About: "What a connection to a database other than conmgr on the application port leads to, a target as in proxy_listen. " +
				"A client asks for another one with the startup option -c conmgr.target_session_attrs=standby (PGOPTIONS, or options in the connection string).",
		},
		{
			Name: "proxy_sslmode", Kind: conf.Enum, Default: "prefer", Words: sslModeWords,
			About: "TLS between conmgr and the instance for such a connection, with libpq's meanings, except that prefer never turns to clear text where TLS was offered. " +
				"verify-full wants the name in backend_host, or the address where that stands alone, in the certificate.",
			Low: "disable lets whoever reads the network read along.",
		},
		{
			Name: "proxy_sslrootcert", Kind: conf.String, Check: checkRootCert,
			About: "File of the certificate authorities, as an absolute path; required by verify-ca and verify-full, and asked by prefer and require too where it is set, as in libpq. " +
				"The word system means the system's authorities, with verify-full only. Read at the start.",
		},
		{
			Name: "metrics_listen", Kind: conf.List, Check: checkEndpoints,
			About: "Where Prometheus finds the metrics of conmgr (HTTP, /metrics): ports of localhost, or host:port, [IPv6]:port, *:port, as '27547'; nowhere when not set.",
			High:  "whoever reaches the port reads them: no password is asked for.",
		},
	}
}
