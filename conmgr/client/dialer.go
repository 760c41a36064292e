// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// How long a conmgr may take to answer.
const (
	askTime       = 5 * time.Second        // at most; connect_timeout may be less
	askTimeBehind = 100 * time.Millisecond // when the list has a destination before it
)

// Parameters of the connection string that are ours. They are not sent.
const (
	paramConmgr = "conmgr"
	paramUser   = "conmgr_user"
	conmgrOff   = "off"
)

// Dialer makes connections through conmgr. The zero value is what the functions
// of the package use. It may be used from any goroutine, and must not be changed
// after the first use.
type Dialer struct {
	// User is a system user, by name or number, whose conmgr is trusted besides
	// those of the own user and of root: the parameter conmgr_user, which wins.
	User string
	// Conmgrs are the elements of the host list, as host:port or host alone, that
	// are a conmgr and nothing else, for conmgrs on other hosts. "off" alone looks
	// for no conmgr. The parameter conmgr, with commas, wins.
	Conmgrs []string
	// DialFunc reaches conmgrs, not instances: network unix with an address like
	// @pgconmgr:27546, or tcp. Nil is that of a net.Dialer.
	DialFunc pgconn.DialFunc
	// OnFault is called for each connection that a fault has closed, from a
	// goroutine of its own, which it may hold up. May be nil.
	OnFault func(*FaultError)

	// For tests; the zero value is what they should be.
	peerUID  func(net.Conn) (uint32, error)
	comeback time.Duration
}

// std is the Dialer of the package's functions.
var std Dialer

// Connect is pgx.Connect through conmgr.
func Connect(ctx context.Context, connString string) (*pgx.Conn, error) {
	return std.Connect(ctx, connString)
}

// ConnectConfig is pgx.ConnectConfig through conmgr.
func ConnectConfig(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	return std.ConnectConfig(ctx, cfg)
}

// BeforeConnect is the hook that pgxpool.Config.BeforeConnect and
// stdlib.OptionBeforeConnect take; see [Dialer.BeforeConnect].
func BeforeConnect(ctx context.Context, cfg *pgx.ConnConfig) error {
	return std.BeforeConnect(ctx, cfg)
}

// Connect is pgx.Connect through conmgr.
func (d *Dialer) Connect(ctx context.Context, connString string) (*pgx.Conn, error) {
	cfg, err := ParseConfig(connString)
	if err != nil {
		return nil, err
	}
	return d.ConnectConfig(ctx, cfg)
}

// ConnectConfig is pgx.ConnectConfig through conmgr. It leaves cfg alone.
func (d *Dialer) ConnectConfig(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	cfg = cfg.Copy()
	if err := d.BeforeConnect(ctx, cfg); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// BeforeConnect changes a configuration for one connect: it asks the conmgrs of
// its host list and puts the instances in their place. It replaces members of
// cfg and changes nothing that a shallow copy shares. That no conmgr answers is
// no error here; pgx.ConnectConfig reports it in the order of the list.
func (d *Dialer) BeforeConnect(ctx context.Context, cfg *pgx.ConnConfig) error {
	return d.prepare(ctx, cfg, nil)
}

// prepare is BeforeConnect; the origin may be known from before.
func (d *Dialer) prepare(ctx context.Context, cfg *pgx.ConnConfig, from *origin) error {
	f := d.finderFor(cfg)
	if f.off || cfg.Database == consoleDatabase {
		return nil
	}
	list := destinationsOf(&cfg.Config)
	if err := f.checkNamed(list); err != nil {
		return err
	}
	start := time.Now()
	if !f.askAll(ctx, list, cfg.ConnectTimeout) {
		return nil
	}
	if from == nil {
		from = originOf(cfg)
	}
	newPlan(cfg, from, list, f.target).install(cfg)
	if left := cfg.ConnectTimeout - time.Since(start); left > 0 {
		cfg.ConnectTimeout = left // both steps together
	}
	return nil
}

// finder tells conmgrs from postmasters, for one connect.
type finder struct {
	dialer  *Dialer
	target  string
	named   []string
	off     bool
	trusted string
	user    string
	name    string // application_name
}

// finderFor takes our parameters out of cfg.
func (d *Dialer) finderFor(cfg *pgx.ConnConfig) *finder {
	f := &finder{
		dialer: d, target: targetOf(&cfg.Config), named: d.Conmgrs, trusted: d.User,
		user: cfg.User, name: cfg.RuntimeParams["application_name"],
	}
	list, listed := cfg.RuntimeParams[paramConmgr]
	user, hasUser := cfg.RuntimeParams[paramUser]
	if listed || hasUser {
		cfg.RuntimeParams = maps.Clone(cfg.RuntimeParams)
		delete(cfg.RuntimeParams, paramConmgr)
		delete(cfg.RuntimeParams, paramUser)
	}
	if hasUser {
		f.trusted = user
	}
	if listed {
		f.named = strings.Split(list, ",")
	}
	f.off = len(f.named) == 1 && f.named[0] == conmgrOff
	if f.user == "" {
		f.user = "pgx"
	}
	return f
}

// checkNamed wants every named conmgr to be in the list, so that a mistake does
// not go unnoticed.
func (f *finder) checkNamed(list []*destination) error {
	for _, name := range f.named {
		if !slices.ContainsFunc(list, func(t *destination) bool { return t.is(name) }) {
			return fmt.Errorf("conmgr=%s: %q is not in the host list", strings.Join(f.named, ","), name)
		}
	}
	return nil
}

// conmgrAt returns the conmgr that a destination may be, nil for a postmaster.
func (f *finder) conmgrAt(t *destination) (c *console, named bool) {
	named = slices.ContainsFunc(f.named, t.is)
	local := isLocal(t.host)
	if !named && !local {
		return nil, false
	}
	c = &console{
		dialer: f.dialer, name: hostPort(t.host, t.port), port: t.port,
		trusted: f.trusted, user: f.user, application: f.name,
	}
	if !local {
		c.remote = c.name
	}
	return c, named
}
