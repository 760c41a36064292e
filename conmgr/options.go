// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// Source gives the current picture of all instances. View must be cheap, must
// never return nil, and may be called from any goroutine.
type Source interface{ View() *View }

// Status is what SHOW STATUS says of the daemon itself.
type Status struct {
	State   string // starting, ready, stopping
	PID     int
	Started time.Time
	Version string
	Hints   string // source of link hints
}

// ShutdownMode is how conmgr ends.
type ShutdownMode string

// The modes of cm_ctl stop and restart.
const (
	ShutdownSmart     ShutdownMode = "smart"     // wait until every application has gone
	ShutdownFast      ShutdownMode = "fast"      // tell every application (57P01) and close
	ShutdownImmediate ShutdownMode = "immediate" // close everything without a word
	ShutdownRestart   ShutdownMode = "restart"   // as fast, telling that conmgr comes back
)

// ServerOptions is what a Server is made of. Source and Route are required;
// the zero value of the rest means what its comment says.
type ServerOptions struct {
	Log      *slog.Logger        // nil discards
	LevelLog slog.Level          // the seed's level LOG
	Source   Source              // required
	Clock    func() mono.Instant // nil is the boot-time clock

	// Route orders the instances that a target may be sent to: indexes into
	// v.Instances, best first. With no such instance it returns an error whose
	// text, meant for the user, says the state of each instance. Required; may be
	// called from any goroutine.
	Route func(v *View, t Target) ([]int, error)

	Port            uint16         // console; 0 lets the kernel choose
	ListenAddresses []string       // names or addresses; "*" is all; empty is localhost
	SocketPath      string         // conmgr.sock, made with mode 0600; empty for none
	ProxyListen     []ProxyPort    // pass-through ports
	ProxyAllow      []netip.Prefix // peers of pass-through and proxy mode besides loopback

	// Proxy mode on Port: what it leads to when a client does not ask for another
	// target, TLS of the hop to an instance, and the authorities of its certificate
	// (nil: not checked, or the system's for SSLVerifyCA and SSLVerifyFull).
	ProxyTarget  Target
	ProxySSLMode SSLMode
	ProxyRoots   *x509.CertPool

	// MaxConnections bounds all applications but those of conmgr.sock; 0 means
	// as many as there are descriptors. Descriptors is how many of those
	// applications may use in all (see DescriptorsLeft).
	MaxConnections int
	Descriptors    uint64

	// ConnectTimeout bounds one connection to an instance by pass-through or proxy
	// mode, TLS included; 0 means 5 s. Then the next candidate is tried.
	ConnectTimeout time.Duration

	// CloseOnRoleChange lets faults that are limited to some targets through,
	// CloseOnStalePrimary those of an instance that lost the split rule.
	CloseOnRoleChange   bool
	CloseOnStalePrimary bool

	Config   func() []ConfigRow            // SHOW CONFIG; nil is an empty list
	Status   func() Status                 // SHOW STATUS; nil is the zero Status
	Shutdown func(mode ShutdownMode) error // asked for on conmgr.sock; must not wait for the end; nil refuses

	// SlowConnect is told the index of an instance when a connection to it by
	// pass-through or proxy mode has taken a second, from a goroutine of its own. May be nil.
	SlowConnect func(instance int)
}

// check reports what is missing and fills what may be left out.
func (o *ServerOptions) check() error {
	if o.Source == nil || o.Route == nil {
		return errors.New("server options: Source and Route are required")
	}
	if o.MaxConnections < 0 {
		return fmt.Errorf("max_connections is %d: expected 0 or more", o.MaxConnections)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Now
	}
	if len(o.ListenAddresses) == 0 {
		o.ListenAddresses = []string{"localhost"}
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.Config == nil {
		o.Config = func() []ConfigRow { return nil }
	}
	if o.Status == nil {
		o.Status = func() Status { return Status{} }
	}
	if o.Shutdown == nil {
		o.Shutdown = func(ShutdownMode) error { return errors.New("this conmgr cannot be shut down from here") }
	}
	if o.SlowConnect == nil {
		o.SlowConnect = func(int) {}
	}
	return nil
}

// Event is one line of SHOW EVENTS.
type Event struct {
	At           time.Time
	Kind         string        // fault, state, shutdown, ...
	Instance     *int          // the number of the instance, nil for none
	Reason       string        // one or two words
	Silence      time.Duration // 0 when that says nothing
	Applications int           // how many were told
	Detail       string        // one sentence
}
