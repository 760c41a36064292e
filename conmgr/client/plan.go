// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// plan is the host list of one connect, with instances in the place of conmgrs.
// To pgx an instance is a host like any other, but its address has a mark of
// ours, since the same instance may stand in the list as a postmaster too:
//
//	host list   localhost:27546                                  db9:5432
//	for pgx     db1:5432              db2:5432                   db9:5432
//	lookup      192.0.2.1%conmgr27546 192.0.2.2%conmgr27546      its own
//	dial        a session bound to the instance, then 192.0.2.1  its own
//
// A configuration that is used again, as pgx.Conn.Config returns it, goes through
// the same steps: each dial has a session of its own, and an instance that is not
// offered any more is an error.
type plan struct {
	target string
	own    hooks         // of the configuration
	before pgconn.Config // what else it was, for postmasters

	entries   []*pgconn.FallbackConfig
	taken     map[string]bool   // hosts of postmasters, which are looked up as ever
	addresses map[string]string // by host of an entry: the marked address
	offers    map[string]*offer // by marked address and port
	marks     map[string]int    // how often each was wanted

	mu   sync.Mutex // guards the following
	last *Watch     // of the instance dialled last
	held *held
}

// held is the session of the question. pgx dials the first of the list next, and
// takes it over; should it not, nobody else ends it.
type held struct {
	session *session
	conmgr  *console
	bound   Instance
	expiry  *time.Timer
}

// heldTime is much more than pgx needs to get to its first dial.
const heldTime = 3 * time.Second

// hooks are what a configuration had before.
type hooks struct {
	dial   pgconn.DialFunc
	lookup pgconn.LookupFunc
	after  func(context.Context, *pgconn.Config, net.Conn) (net.Conn, error)
	build  pgconn.BuildFrontendFunc
}

// offer is an instance that a conmgr has named, or why it named none.
type offer struct {
	conmgr   *console
	instance Instance
	password string
	variants []*pgconn.FallbackConfig
	err      error
}

// newPlan makes the plan for destinations that were asked.
func newPlan(cfg *pgx.ConnConfig, from *origin, list []*destination, target string) *plan {
	p := &plan{
		target:    target,
		own:       hooks{cfg.DialFunc, cfg.LookupFunc, cfg.AfterNetConnect, cfg.BuildFrontend},
		before:    cfg.Config,
		taken:     map[string]bool{},
		addresses: map[string]string{}, offers: map[string]*offer{}, marks: map[string]int{},
	}
	if t := list[0]; t.session != nil {
		p.held = &held{t.session, t.conmgr, t.answers[0], time.AfterFunc(heldTime, t.session.close)}
	}
	for _, t := range list {
		if t.conmgr == nil {
			p.taken[t.host] = true
		}
	}
	for _, t := range list {
		if t.conmgr == nil {
			p.entries = append(p.entries, t.variants...)
		} else {
			p.addConmgr(cfg, from, t)
		}
	}
	return p
}

// addConmgr appends what a conmgr has answered. No answer has an entry too, which
// pgx reports in its place.
func (p *plan) addConmgr(cfg *pgx.ConnConfig, from *origin, t *destination) {
	none := []*pgconn.FallbackConfig{{}}
	mark := p.mark(t)
	if t.err != nil {
		p.add("conmgr", "localhost"+mark, t.port, &offer{err: t.err, variants: none})
	}
	for _, in := range t.answers {
		o := &offer{conmgr: t.conmgr, instance: in, password: from.secret(cfg, in)}
		if o.variants, o.err = t.variantsFor(cfg, in); o.err != nil {
			o.variants = none
		}
		p.add(in.Name(), cmp.Or(in.HostAddr, in.Host)+mark, in.Port, o)
	}
}

// mark tells the addresses of one conmgr from all others of the list.
func (p *plan) mark(t *destination) string {
	mark := fmt.Sprintf("%%conmgr%d", t.port)
	p.marks[mark]++
	if n := p.marks[mark]; n > 1 {
		return fmt.Sprintf("%s-%d", mark, n)
	}
	return mark
}

// add appends an offer. Its host is the name that people know, unless another
// entry has it with another address.
func (p *plan) add(name, address string, port uint16, o *offer) {
	if other, used := p.addresses[name]; p.taken[name] || used && other != address {
		name = address
	}
	p.addresses[name], p.addresses[address] = address, address
	p.offers[hostPort(address, port)] = o
	for _, v := range o.variants {
		p.entries = append(p.entries, &pgconn.FallbackConfig{Host: name, Port: port, TLSConfig: v.TLSConfig})
	}
}

// install puts the plan into a configuration.
func (p *plan) install(cfg *pgx.ConnConfig) {
	e := p.entries[0]
	cfg.Host, cfg.Port, cfg.TLSConfig = e.Host, e.Port, e.TLSConfig
	cfg.Fallbacks = p.entries[1:]
	cfg.LookupFunc, cfg.DialFunc = p.lookup, p.dial
	cfg.AfterNetConnect, cfg.BuildFrontend = p.afterNetConnect, p.buildFrontend
}

// lookup is the LookupFunc.
func (p *plan) lookup(ctx context.Context, host string) ([]string, error) {
	if address, ok := p.addresses[host]; ok {
		return []string{address}, nil
	}
	return p.own.lookup(ctx, host)
}

// dial is the DialFunc.
func (p *plan) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if o, ok := p.offers[address]; ok {
		return p.dialInstance(ctx, o)
	}
	if f := p.lostAt(address); f != nil {
		return nil, f
	}
	return p.own.dial(ctx, network, address)
}

// lostAt returns the fault of the present connection when that is with the
// address. pgx sends a cancel request for a statement that failed, and keeps the
// place in the pool until it is through: to a dead host for 15 s.
func (p *plan) lostAt(address string) *FaultError {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != nil && p.last.remote() == address {
		return p.last.fault()
	}
	return nil
}

// dialInstance connects to an instance and watches the connection.
func (p *plan) dialInstance(ctx context.Context, o *offer) (net.Conn, error) {
	p.remember(nil)
	if o.err != nil {
		return nil, o.err
	}
	s, in, err := p.session(ctx, o)
	if err != nil {
		return nil, err
	}
	w := startWatch(o, s, in, p.target)
	conn, err := w.connect(ctx, func(ctx context.Context) (net.Conn, error) { return p.reach(ctx, in) })
	if err == nil {
		p.remember(w)
	}
	return conn, err
}

// session returns one that is bound to the offered instance: that of the question
// or a new one.
func (p *plan) session(ctx context.Context, o *offer) (*session, Instance, error) {
	p.mu.Lock()
	h := p.held
	p.held = nil
	p.mu.Unlock()
	if h != nil && h.expiry.Stop() {
		if h.conmgr == o.conmgr && h.bound == o.instance {
			return h.session, h.bound, nil
		}
		h.session.close()
	}
	return o.conmgr.bind(ctx, p.target, o.instance.isStill)
}

func (p *plan) remember(w *Watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = w
}

// isStill compares an instance with the one that is offered now. By its host
// name it may have moved to another address, as certificates go by the name.
func (i Instance) isStill(now Instance) bool {
	return i.Number == now.Number && i.Host == now.Host && i.Port == now.Port && (i.Host != "" || i.HostAddr == now.HostAddr)
}

// reach dials the address that the heartbeat uses, and every address of the host
// while conmgr has none.
func (p *plan) reach(ctx context.Context, in Instance) (conn net.Conn, err error) {
	addresses := []string{in.HostAddr}
	if in.HostAddr == "" {
		if addresses, err = p.own.lookup(ctx, in.Host); err != nil {
			return nil, err
		}
	}
	err = fmt.Errorf("%s has no address", in.Host)
	for _, a := range addresses {
		if conn, err = p.own.dial(ctx, "tcp", hostPort(a, in.Port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// afterNetConnect is the AfterNetConnect. pgx passes the configuration that this
// connect goes by: from here on it describes the instance, for the password and
// for whoever asks the connection for it. What step one took of the time counts
// for the first instance only.
func (p *plan) afterNetConnect(ctx context.Context, cfg *pgconn.Config, conn net.Conn) (net.Conn, error) {
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Password = p.before.Host, p.before.Port, p.before.TLSConfig, p.before.Password
	if w := watchOf(conn); w != nil {
		cfg.Host, cfg.Port, cfg.Password = w.instance.Name(), w.instance.Port, w.offer.password
		cfg.TLSConfig = w.offer.tlsOf(conn)
	}
	cfg.ConnectTimeout = p.before.ConnectTimeout
	if p.own.after == nil {
		return conn, nil
	}
	return p.own.after(ctx, cfg, conn)
}

// tlsOf returns the TLS configuration that a connection was made with.
func (o *offer) tlsOf(conn net.Conn) *tls.Config {
	_, encrypted := conn.(*tls.Conn)
	for _, v := range o.variants {
		if encrypted == (v.TLSConfig != nil) {
			return v.TLSConfig
		}
	}
	return nil
}
