// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

const confFile = "postgresql.conf"

var actionWords = []string{"terminate", "wait", "ignore"}

// Parameters returns the table of the watchdog.* parameters, in the order in
// which they are shown. An empty default means one that is taken from the
// instance, as the sentence says. A plain number of a duration is seconds, but for
// check_attr_interval, which the seed counts in milliseconds.
func Parameters() conf.Table { return parameters }

var parameters = conf.Table{
	{Name: "watchdog.port", Kind: conf.Integer, Default: "27545", Min: 1, Max: 65535, File: confFile, Context: conf.Restart,
		About: "Port for heartbeats, the same as watchdog_port of conmgr.conf."},
	{Name: "watchdog.listen_addresses", Kind: conf.List, File: confFile, Context: conf.Restart,
		About: "Addresses for heartbeats; listen_addresses of the instance when not set."},
	millis("watchdog.check_attr_interval", "1s", time.Millisecond, time.Hour,
		"How often the attributes of the instance are checked.",
		"each check is a query: below 10 ms the load shows", "a change that no faster path reports is seen late"),
	{Name: "watchdog.max_heartbeat_connections", Kind: conf.Integer, Min: 1, Max: 1 << 20, File: confFile, Context: conf.Reload,
		About: "How many conmgr processes may be connected; max_connections of the instance when not set.",
		Low:   "further conmgrs are refused with reason full", High: "each costs a descriptor and up to 6 KiB"},
	seconds("watchdog.check_accept_interval", "5s", 100*time.Millisecond, time.Hour,
		"How often the instance is tried for whether it still accepts connections.",
		"PostgreSQL starts a process for each try", "a hung postmaster is noticed late"),
	seconds("watchdog.accept_timeout", "2s", 10*time.Millisecond, time.Minute,
		"How long the instance may take to accept and to answer; two misses mean unresponsive.",
		"a busy instance is called unresponsive", "a hung postmaster is noticed late"),
	seconds("watchdog.min_heartbeat_interval", "100ms", 10*time.Millisecond, time.Hour,
		"The shortest heartbeat_interval that a conmgr may ask for.",
		"one conmgr can ask for a hundred packets a second", "conmgrs with shorter intervals are refused"),
	seconds("watchdog.max_heartbeat_timeout", "10min", time.Second, 24*time.Hour,
		"The longest heartbeat_timeout that a conmgr may ask for.",
		"conmgrs with longer timeouts are refused", "a dead client may hold its locks for that long"),
	{Name: "watchdog.clients", Kind: conf.List, Default: "samenet", File: confFile, Context: conf.Reload, Check: checkAddresses,
		About: "Who may open a heartbeat without a key: addresses, CIDR blocks, samehost, samenet, loopback, all."},
	{Name: "watchdog.protect", Kind: conf.List, Default: "loopback, samehost", File: confFile, Context: conf.Reload, Check: checkAddresses,
		About: "Addresses that are never armed and never killed, in the same words."},
	{Name: "watchdog.ports", Kind: conf.List, File: confFile, Context: conf.Reload, Check: checkPorts,
		About: "Further TCP ports of this host, at any of its addresses, whose connections with a dead client are closed too: those of a pooler, such as 6432."},
	seconds("watchdog.link_down_grace", "5s", 0, time.Hour,
		"How long a session may be silent after the kernel reported its link down.",
		"a network card's reset, 1 to 4 seconds, ends sessions", "a pulled cable is acted on only at heartbeat_timeout"),
	{Name: "watchdog.link_hints", Kind: conf.Bool, Default: "on", File: confFile, Context: conf.Reload,
		About: "Ask conmgrs at once when the kernel reports that the link to them is lost; off leaves it to heartbeat_timeout."},
	action("watchdog.on_timeout", "terminate", "Nothing came from the client host for heartbeat_timeout."),
	action("watchdog.on_hang", "wait", "The client host answers, but its conmgr is silent."),
	action("watchdog.on_disconnect", "wait", "The heartbeat connection broke without a goodbye."),
	action("watchdog.on_shutdown", "terminate", "The conmgr was stopped."),
	{Name: "watchdog.terminate_replication", Kind: conf.Enum, Default: "auto", Words: []string{"auto", "on", "off"}, File: confFile, Context: conf.Reload,
		About: "Whether replication connections end too; auto: only when the host is gone."},
	{Name: "watchdog.shared_address", Kind: conf.Enum, Default: "spare", Words: []string{"spare", "terminate"}, File: confFile, Context: conf.Reload,
		About: "What becomes of an address when another conmgr behind it is alive."},
	{Name: "watchdog.dry_run", Kind: conf.Bool, Default: "off", File: confFile, Context: conf.Reload,
		About: "Do everything but kill, and record what would have been killed."},
	seconds("watchdog.terminate_timeout", "10s", 100*time.Millisecond, time.Hour,
		"How long sessions may take to end before they are reported as survivors.",
		"slow but willing backends are reported as survivors", "the report comes late"),
	{Name: "watchdog.metrics_listen", Kind: conf.List, File: confFile, Context: conf.Reload, Check: checkEndpoints,
		About: "Where Prometheus finds the metrics of the agent (HTTP, /metrics): ports of localhost, or host:port, [IPv6]:port, *:port; nowhere when not set.",
		High:  "whoever reaches the port reads them: no password is asked for"},
}

// aliases are the names that version 13 of the seed product gives to two of its
// parameters. They count as the parameter when that is not set in the same place.
var aliases = map[string]string{
	"watchdog.check_status_interval": "watchdog.check_attr_interval",
	"watchdog.max_hb_connections":    "watchdog.max_heartbeat_connections",
}

func seconds(name, def string, lo, hi time.Duration, about, low, high string) conf.Param {
	p := millis(name, def, lo, hi, about, low, high)
	p.Unit = time.Second
	return p
}

func millis(name, def string, lo, hi time.Duration, about, low, high string) conf.Param {
	return conf.Param{Name: name, Kind: conf.Duration, Default: def, Min: int64(lo), Max: int64(hi), Unit: time.Millisecond,
		File: confFile, Context: conf.Reload, About: about, Low: low, High: high}
}

func action(name, def, about string) conf.Param {
	return conf.Param{Name: name, Kind: conf.Enum, Default: def, Words: actionWords, File: confFile, Context: conf.Reload, About: about}
}

func checkEndpoints(value string) error {
	_, err := conf.ParseEndpoints(value)
	return err
}

func checkAddresses(value string) error {
	words, err := conf.ParseList(value)
	if err != nil {
		return err
	}
	_, err = ParseAddresses(words)
	return err
}

// maxPorts bounds the kernel's filter.
const maxPorts = 32

// parsePorts reads watchdog.ports.
func parsePorts(words []string) ([]uint16, error) {
	if len(words) > maxPorts {
		return nil, fmt.Errorf("expected at most %d ports, found %d", maxPorts, len(words))
	}
	var ports []uint16
	for _, w := range words {
		n, err := conf.ParseInt(w, 1, 65535)
		if err != nil {
			return nil, err
		}
		ports = append(ports, uint16(n))
	}
	return ports, nil
}

func checkPorts(value string) error {
	words, err := conf.ParseList(value)
	if err == nil {
		_, err = parsePorts(words)
	}
	return err
}

// parameterNames are the table's names and the aliases, for asking the instance.
func parameterNames() []string {
	var names []string
	for i := range parameters {
		names = append(names, parameters[i].Name)
	}
	for alias := range aliases {
		names = append(names, alias)
	}
	return names
}

func parameter(name string) (*conf.Param, error) {
	for i := range parameters {
		if parameters[i].Name == name {
			return &parameters[i], nil
		}
	}
	return nil, fmt.Errorf("unknown parameter %s", name)
}
