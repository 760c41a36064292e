// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// Config is the parameters in use, as plain values. It is not changed after
// Resolve; a reload makes a new one.
type Config struct {
	Port                    uint16
	ListenAddresses         []string
	CheckAttrInterval       time.Duration
	MaxHeartbeatConnections int
	CheckAcceptInterval     time.Duration
	AcceptTimeout           time.Duration
	MinHeartbeatInterval    time.Duration
	MaxHeartbeatTimeout     time.Duration
	Clients                 Addresses
	Protect                 Addresses
	Ports                   []uint16 // of poolers, beside the instance's own
	LinkDownGrace           time.Duration
	LinkHints               bool
	OnTimeout               string // terminate, wait, ignore; so are the next three
	OnHang                  string
	OnDisconnect            string
	OnShutdown              string
	TerminateReplication    string // auto, on, off
	SharedAddress           string // spare, terminate
	DryRun                  bool
	TerminateTimeout        time.Duration
	MetricsListen           []conf.Endpoint // empty: nowhere

	// FromInstance: the instance's own settings, live or as last kept, are in.
	// Until then the rest is defaults, file and flags.
	FromInstance bool

	values *conf.Values
}

// Sources are where settings come from, in rising rank after the defaults.
type Sources struct {
	Server *ServerSettings // postgresql.conf, as the instance has loaded it; nil when never seen
	File   []conf.Entry    // pgwatchdog.conf
	Flags  []conf.Entry    // command line
}

// Findings are what was wrong with settings; each is one line for the log.
type Findings struct {
	Errors   []string // a value that was not taken: the operator must act
	Warnings []string // a setting that has no effect, or not yet
	Notes    []string
}

// Resolve makes a Config from all sources. A bad value counts as not set at that
// source when old is nil; otherwise the value of old stays. So do parameters that
// need a restart, once old has seen the instance's settings. The Config is always
// usable.
func Resolve(s Sources, old *Config) (*Config, Findings) {
	var f Findings
	entries := s.entries(&f)
	entries = f.dropUnknown(entries)
	if old != nil {
		entries = keepOld(entries, old, &f)
	}
	values, err := parameters.Read(entries)
	f.addErrors(err)
	return newConfig(values, s.Server), f
}

// entries joins the sources in rising rank.
func (s Sources) entries(f *Findings) []conf.Entry {
	var all []conf.Entry
	if s.Server != nil {
		all = append(all, unalias(s.Server.defaults(), f)...)
		all = append(all, unalias(s.Server.Entries, f)...)
		f.Warnings = append(f.Warnings, s.Server.Warnings...)
	}
	all = append(all, unalias(s.File, f)...)
	return append(all, unalias(s.Flags, f)...)
}

// unalias gives the aliases of one source their proper names.
func unalias(entries []conf.Entry, f *Findings) []conf.Entry {
	var out []conf.Entry
	for _, e := range entries {
		proper, ok := aliases[e.Name]
		if !ok {
			out = append(out, e)
			continue
		}
		set := slices.ContainsFunc(entries, func(other conf.Entry) bool { return other.Name == proper })
		if set {
			f.Warnings = append(f.Warnings, fmt.Sprintf("%s: %s is ignored, since %s is set too", place(e), e.Name, proper))
			continue
		}
		f.Notes = append(f.Notes, fmt.Sprintf("%s: %s is taken as %s", place(e), e.Name, proper))
		e.Name = proper
		out = append(out, e)
	}
	return out
}

// dropUnknown warns of names that the table does not have: PostgreSQL keeps a
// misspelt watchdog.* setting without a word.
func (f *Findings) dropUnknown(entries []conf.Entry) []conf.Entry {
	return slices.DeleteFunc(entries, func(e conf.Entry) bool {
		if _, err := parameter(e.Name); err == nil {
			return false
		}
		_, err := parameters.Read([]conf.Entry{e})
		f.Warnings = append(f.Warnings, strings.TrimSpace(err.Error())+"; it has no effect")
		return true
	})
}

// keepOld puts the values of old below or above the new entries: below where a
// new value is bad, above where a change needs a restart.
func keepOld(entries []conf.Entry, old *Config, f *Findings) []conf.Entry {
	fresh, _ := parameters.Read(entries)
	var below, above []conf.Entry
	for i := range parameters {
		p := &parameters[i]
		kept := conf.Entry{Name: p.Name, Value: text(old.values, p), File: old.values.Origin(p.Name)}
		if kept.Value == "" {
			continue
		}
		bad := slices.ContainsFunc(entries, func(e conf.Entry) bool {
			_, err := parameters.Read([]conf.Entry{e})
			return e.Name == p.Name && err != nil
		})
		now := text(fresh, p)
		switch {
		case bad:
			below = append(below, kept)
		case p.Context == conf.Restart && old.FromInstance && now != kept.Value:
			above = append(above, kept)
			f.Warnings = append(f.Warnings, fmt.Sprintf("%s: changed from %s to %s; pgwatchdog must be restarted for it", p.Name, kept.Value, now))
		}
	}
	return slices.Concat(below, entries, above)
}

// text returns the value of a parameter in the form that Read takes.
func text(v *conf.Values, p *conf.Param) string {
	switch p.Kind {
	case conf.List:
		return strings.Join(v.List(p.Name), ", ")
	case conf.Integer:
		if n := v.Int(p.Name); n != 0 || p.Min <= 0 && p.Default != "" {
			return fmt.Sprint(n)
		}
		return ""
	case conf.Duration:
		return conf.FormatDuration(v.Duration(p.Name))
	case conf.Bool:
		if v.Bool(p.Name) {
			return "on"
		}
		return "off"
	}
	return v.Text(p.Name)
}

func newConfig(v *conf.Values, server *ServerSettings) *Config {
	c := &Config{
		Port:                    uint16(v.Int("watchdog.port")),
		ListenAddresses:         v.List("watchdog.listen_addresses"),
		CheckAttrInterval:       v.Duration("watchdog.check_attr_interval"),
		MaxHeartbeatConnections: int(v.Int("watchdog.max_heartbeat_connections")),
		CheckAcceptInterval:     v.Duration("watchdog.check_accept_interval"),
		AcceptTimeout:           v.Duration("watchdog.accept_timeout"),
		MinHeartbeatInterval:    v.Duration("watchdog.min_heartbeat_interval"),
		MaxHeartbeatTimeout:     v.Duration("watchdog.max_heartbeat_timeout"),
		LinkDownGrace:           v.Duration("watchdog.link_down_grace"),
		LinkHints:               v.Bool("watchdog.link_hints"),
		OnTimeout:               v.Text("watchdog.on_timeout"),
		OnHang:                  v.Text("watchdog.on_hang"),
		OnDisconnect:            v.Text("watchdog.on_disconnect"),
		OnShutdown:              v.Text("watchdog.on_shutdown"),
		TerminateReplication:    v.Text("watchdog.terminate_replication"),
		SharedAddress:           v.Text("watchdog.shared_address"),
		DryRun:                  v.Bool("watchdog.dry_run"),
		TerminateTimeout:        v.Duration("watchdog.terminate_timeout"),
		FromInstance:            server != nil,
		values:                  v,
	}
	c.Clients, _ = ParseAddresses(v.List("watchdog.clients")) // the table has checked them
	c.Protect, _ = ParseAddresses(v.List("watchdog.protect"))
	c.Ports, _ = parsePorts(v.List("watchdog.ports"))
	c.MetricsListen, _ = conf.ParseEndpoints(strings.Join(v.List("watchdog.metrics_listen"), ","))
	if c.MaxHeartbeatConnections == 0 {
		c.MaxHeartbeatConnections = 100 // PostgreSQL's default of max_connections
	}
	if len(c.ListenAddresses) == 0 {
		c.ListenAddresses = []string{"localhost"} // and of listen_addresses
	}
	return c
}

// descriptorsReserve is what the agent needs beside its heartbeat connections:
// standard streams, listeners, files, the database, sock_diag and those that shake
// hands and are turned away.
const descriptorsReserve = 64

// Descriptors returns how many file descriptors the agent needs: 64 and one for each
// of max_heartbeat_connections.
func (c *Config) Descriptors() uint64 {
	return descriptorsReserve + uint64(c.MaxHeartbeatConnections)
}

// Rows returns every parameter with its value, where it was set, its default and
// what a change needs.
func (c *Config) Rows() []conf.Row { return c.values.Rows() }

func place(e conf.Entry) string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	return e.File
}

// joined is what errors.Join returns.
type joined interface {
	error
	Unwrap() []error
}

// addErrors takes the joined errors of conf apart, one line each.
func (f *Findings) addErrors(err error) {
	if many, ok := errors.AsType[joined](err); ok {
		for _, e := range many.Unwrap() {
			f.Errors = append(f.Errors, e.Error())
		}
	} else if err != nil {
		f.Errors = append(f.Errors, err.Error())
	}
}
