// SPDX-License-Identifier: Apache-2.0

package drivers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

const (
	user, password = "app", "long-secret"
	portHeartbeat  = 27545
	timeout        = time.Second
	// generous is how long an expectation may take on a machine in trouble.
	generous = 60 * time.Second
)

// site is a primary, its standby, and the conmgr of the client host for them.
type site struct {
	name             string
	port             int // of conmgr; port+1 is its pass-through port
	hosts            [2]*agenttest.Host
	primary, standby *agenttest.Postgres
	rootcert         string // empty: without TLS
	seen             *agenttest.Capture
	cm               *agenttest.Conmgr
}

// world is the lab with both sites.
type world struct {
	*testing.T
	client        *agenttest.Host
	secure, plain *site
}

func newWorld(t *testing.T) *world {
	t.Helper()
	lab := agenttest.MustLab(t, "client", "db1", "db2", "db3", "db4")
	w := &world{
		T: t, client: lab.Host("client"),
		secure: &site{name: "secure", port: 27546, hosts: [2]*agenttest.Host{lab.Host("db1"), lab.Host("db2")}},
		plain:  &site{name: "plain", port: 27556, hosts: [2]*agenttest.Host{lab.Host("db3"), lab.Host("db4")}},
	}
	var both errgroup.Group
	for _, s := range []*site{w.secure, w.plain} {
		both.Go(func() error { return w.start(s) })
	}
	w.must(both.Wait())
	for _, s := range []*site{w.secure, w.plain} {
		agenttest.Eventually(t, generous, s.name+": primary and standby are known", func() bool {
			text, err := s.cm.Ctl(t.Context(), "status", "-i", "instance")
			return err == nil && strings.Contains(text, "primary") && strings.Contains(text, "standby")
		})
	}
	return w
}

// start starts instances that ask for a password, their agents, and a conmgr.
func (w *world) start(s *site) (err error) {
	ctx := w.Context()
	hba := []string{"host replication all 10.99.0.0/24 trust", "host all all 10.99.0.0/24 scram-sha-256"}
	if s.primary, err = s.hosts[0].Postgres(ctx, agenttest.PostgresOptions{HBA: hba}); err != nil {
		return err
	}
	params := map[string]string{
		"heartbeat_interval": "100ms", "heartbeat_timeout": "1s", "log_min_messages": "INFO",
		"port": fmt.Sprint(s.port), "proxy_listen": fmt.Sprintf("'%d:primary'", s.port+1),
	}
	if s == w.secure {
		if s.rootcert, err = s.primary.EnableTLS(); err != nil {
			return err
		}
		params["proxy_sslmode"], params["proxy_sslrootcert"] = "verify-full", "'"+s.rootcert+"'"
	}
	role := fmt.Sprintf("SET password_encryption = 'scram-sha-256'; CREATE ROLE %s LOGIN IN ROLE pg_monitor PASSWORD '%s'", user, password)
	if err := s.primary.Exec(ctx, role); err != nil {
		return err
	}
	if s.standby, err = s.hosts[1].Postgres(ctx, agenttest.PostgresOptions{HBA: hba, StreamFrom: s.primary}); err != nil {
		return err
	}
	for _, p := range []*agenttest.Postgres{s.primary, s.standby} {
		if _, err := p.StartWatchdog(ctx, agenttest.WatchdogOptions{}); err != nil {
			return err
		}
	}
	if s.seen, err = w.client.Capture(portHeartbeat); err != nil {
		return err
	}
	w.Cleanup(func() { _ = s.seen.Close() })
	s.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Name: s.name, Instances: []*agenttest.Postgres{s.primary, s.standby}, Params: params,
	})
	if err != nil {
		return err
	}
	return s.cm.Start(ctx)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// way is one way of a driver to a site.
type way struct {
	name, sslmode, options string
	pass                   bool // the pass-through port, else proxy mode
	site                   *site
	// ssl is what pg_stat_ssl says; "": it depends on what the driver prefers.
	ssl string
}

func (w *world) ways() []way {
	return []way{
		{name: "proxy-tls", site: w.secure, ssl: "t"},
		{name: "proxy-plain", site: w.plain, ssl: "f"},
		{name: "pass-tls", pass: true, site: w.secure},
		{name: "pass-plain", pass: true, site: w.plain, ssl: "f"},
		{name: "pass-require", pass: true, sslmode: "require", site: w.secure, ssl: "t"},
		{name: "pass-verify-full", pass: true, sslmode: "verify-full", site: w.secure, ssl: "t"},
		{name: "standby-tls", options: "-c conmgr.target_session_attrs=standby", site: w.secure},
		{name: "standby-plain", options: "-c geqo=off --conmgr.target_session_attrs=prefer\\-standby", site: w.plain},
	}
}

func (v *way) argument() string {
	port := v.site.port
	if v.pass {
		port++
	}
	return fmt.Sprintf("%s,%d,%s,%s", v.name, port, v.sslmode, v.options)
}

// play follows the programs through their events.
type play struct {
	*world
	programs []program
	list     []way
	events   chan event
}

// each is called for every connection that lives long.
func (p *play) each(f func(key string, v *way)) {
	for _, prog := range p.programs {
		for i := range p.list {
			if p.list[i].options == "" {
				f(prog.name+"/"+p.list[i].name, &p.list[i])
			}
		}
	}
}

// await waits until each connection has had the event, and returns them by
// "program/case".
func (p *play) await(what string, n int) map[string]event {
	p.Helper()
	got := map[string]event{}
	limit := time.After(generous)
	for len(got) < n {
		select {
		case e := <-p.events:
			if e.what != what {
				p.Fatalf("%v: expected %s", e, what)
			}
			got[e.program+"/"+e.name] = e
		case <-limit:
			p.Fatalf("%s: %d of %d within %v: %v", what, len(got), n, generous, slices.Sorted(maps.Keys(got)))
		}
	}
	return got
}

// awaitFirst waits for what the programs say before the fault.
func (p *play) awaitFirst() {
	p.Helper()
	limit := time.After(generous)
	for n := len(p.programs) * len(p.list); n > 0; n-- {
		select {
		case e := <-p.events:
			switch {
			case e.what == "ready":
			case e.what == "standby":
				v := p.list[slices.IndexFunc(p.list, func(v way) bool { return v.name == e.name })]
				if want := v.site.standby.Host.Addr4.String() + " true"; e.detail != want {
					p.Errorf("%v: expected %s", e, want)
				}
			default:
				p.Fatalf("%v: expected ready or standby", e)
			}
		case <-limit:
			p.Fatalf("%d connections are not ready within %v", n, generous)
		}
	}
}

// Every driver works through conmgr in every way, hears of its server's silent
// death when conmgr's verdict has come, and reaches the promoted standby.
func TestDrivers(t *testing.T) {
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	programs := mustPrograms(t)
	p := &play{world: newWorld(t), programs: programs, events: make(chan event, 1000)}
	p.list = p.ways()
	var cases []string
	for i := range p.list {
		cases = append(cases, p.list[i].argument())
	}
	env := []string{"DRIVER_USER=" + user, "DRIVER_PASSWORD=" + password, "DRIVER_ROOTCERT=" + p.secure.rootcert}
	var started []*running
	for _, prog := range programs {
		started = append(started, prog.mustRun(t, p.client, env, cases, p.events))
	}
	p.awaitFirst()
	p.checkSessions()
	for _, s := range []*site{p.secure, p.plain} {
		agenttest.MustFault(t, s.hosts[0].Cut)
	}
	p.checkLost()
	var both errgroup.Group
	for _, s := range []*site{p.secure, p.plain} {
		both.Go(func() error { _, err := s.standby.Promote(t.Context()); return err })
	}
	p.must(both.Wait())
	n := 0
	p.each(func(string, *way) { n++ })
	again := p.await("again", n)
	p.each(func(key string, v *way) {
		if want := v.site.standby.Host.Addr4.String(); again[key].detail != want {
			t.Errorf("%v: expected %s", again[key], want)
		}
	})
	for _, r := range started {
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

// checkSessions waits until the instances show every connection in its long
// statement, and compares what they say of its TLS.
func (p *play) checkSessions() {
	p.Helper()
	want, sleeping := map[string]string{}, map[string]string{}
	p.each(func(key string, v *way) { want[key] = v.ssl })
	agenttest.Eventually(p, generous, "all connections in their long statement", func() bool {
		clear(sleeping)
		for _, s := range []*site{p.secure, p.plain} {
			for _, row := range agenttest.MustQuery(p, s.primary, `SELECT application_name || ' ' || ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
				WHERE state = 'active' AND query LIKE '%pg_sleep(600)'`) {
				name, ssl, _ := strings.Cut(row, " ")
				sleeping[name] = ssl[:1]
			}
		}
		return len(sleeping) == len(want)
	})
	for key, ssl := range want {
		if got, ok := sleeping[key]; !ok || ssl != "" && got != ssl {
			p.Errorf("%s: TLS is %q, expected %q", key, got, ssl)
		}
	}
}

// checkLost waits for the errors and measures them from the last heartbeat.
func (p *play) checkLost() {
	p.Helper()
	n := 0
	p.each(func(string, *way) { n++ })
	lost := p.await("lost", n)
	latest := map[string]time.Duration{}
	p.each(func(key string, v *way) {
		e := lost[key]
		last := agenttest.MustLastReceived(p, v.site.seen, v.site.hosts[0].Addr4)
		silence := e.at.Sub(last)
		if silence < timeout || e.detail == "" {
			p.Errorf("%v after %v of silence: expected an error, and not before %v", e, silence, timeout)
		}
		latest[e.program] = max(latest[e.program], silence-timeout)
	})
	for _, prog := range p.programs {
		p.Logf("%-14s knew %.1f ms after the verdict was due", prog.name, latest[prog.name].Seconds()*1000)
	}
}
