// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresOptions says how an instance differs from the default one.
type PostgresOptions struct {
	// Name tells the instances of one host apart; empty is "postgres".
	Name string
	// Port is the one to listen on; 0 is 5432.
	Port uint16
	// Listen is listen_addresses; empty is "*".
	Listen string
	// Conf is added to postgresql.conf; values are quoted when written.
	Conf map[string]string
	// HBA replaces the lines of pg_hba.conf for TCP; nil trusts the lab's
	// networks and loopback, for replication too.
	HBA []string
	// StreamFrom makes the instance a streaming standby of another one.
	StreamFrom *Postgres
	// Bin is the directory of the server's programs, as from PostgresTree; empty
	// is that of the installed server.
	Bin string
	// Fresh runs initdb, so that the system identifier differs from that of
	// all other instances, which come from one template.
	Fresh bool
}

// Postgres is a real server on a host. It trusts local connections by its Unix
// socket as superuser "postgres". Its methods must not be called concurrently,
// except Connect, Query and Exec.
type Postgres struct {
	Host *Host
	Name string
	Port uint16
	// DataDir and SocketDir belong to the system user postgres.
	DataDir, SocketDir string

	bin     string
	process *Process
	kept    keptConn
}

// Postgres makes an instance, starts it and waits until it accepts
// connections.
func (h *Host) Postgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	p := &Postgres{Host: h, Name: o.Name, Port: o.Port, bin: o.Bin}
	if p.bin == "" {
		var err error
		if p.bin, err = postgresBin(); err != nil {
			return nil, err
		}
	}
	if p.Name == "" {
		p.Name = "postgres"
	}
	if p.Port == 0 {
		p.Port = 5432
	}
	if err := p.create(ctx, o); err != nil {
		return nil, fmt.Errorf("create instance %s on %s: %w", p.Name, h.Name, err)
	}
	return p, p.Start(ctx)
}

// create makes the directories and the configuration.
func (p *Postgres) create(ctx context.Context, o PostgresOptions) (err error) {
	base, err := p.Host.Mkdir(postgresUser, p.Name)
	if err != nil {
		return err
	}
	// Everybody may reach the socket, as in a distribution's package.
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	p.DataDir = filepath.Join(base, "data")
	if p.SocketDir, err = p.Host.Mkdir(postgresUser, p.Name, "run"); err != nil {
		return err
	}
	if err := os.Chmod(p.SocketDir, 0o755); err != nil {
		return err
	}
	switch {
	case o.StreamFrom != nil:
		err = p.baseBackup(ctx, o.StreamFrom)
	case o.Fresh:
		err = initdb(ctx, p.bin, p.DataDir)
	default:
		err = MakeDataDir(ctx, p.DataDir)
	}
	if err != nil {
		return err
	}
	if err := p.writeHBA(o.HBA); err != nil {
		return err
	}
	return p.SetConf(p.settings(o))
}

// settings are small and fast, and otherwise PostgreSQL's defaults.
func (p *Postgres) settings(o PostgresOptions) map[string]string {
	conf := map[string]string{
		"listen_addresses":           "*",
		"port":                       fmt.Sprint(p.Port),
		"unix_socket_directories":    p.SocketDir,
		"shared_buffers":             "16MB",
		"dynamic_shared_memory_type": "mmap", // files of the data directory: nothing left behind
		"fsync":                      "off",
		"wal_log_hints":              "on", // pg_rewind
		"wal_keep_size":              "64MB",
		"log_line_prefix":            "%m [%p] %q%u@%h ",
		"jit":                        "off",
	}
	if o.Listen != "" {
		conf["listen_addresses"] = o.Listen
	}
	if o.StreamFrom != nil {
		conf["primary_conninfo"] = o.StreamFrom.conninfo(p.Host)
	}
	maps.Copy(conf, o.Conf)
	return conf
}

// conninfo is how a standby on a host reaches this instance.
func (p *Postgres) conninfo(from *Host) string {
	host := p.Host.Addr4.String()
	if from == p.Host {
		host = "127.0.0.1"
	}
	return fmt.Sprintf("host=%s port=%d user=postgres application_name=%s connect_timeout=5", host, p.Port, from.Name)
}

func (p *Postgres) writeHBA(lines []string) error {
	v4, v6 := p.Host.lab.Networks()
	if lines == nil {
		for _, net := range []string{v4.String(), v6.String(), "127.0.0.1/32", "::1/128"} {
			lines = append(lines, "host all all "+net+" trust", "host replication all "+net+" trust")
		}
	}
	text := "local all all trust\nlocal replication all trust\n" + strings.Join(lines, "\n") + "\n"
	return p.writeFile("pg_hba.conf", text)
}

// SetHBA replaces the TCP lines of pg_hba.conf (nil: the default ones); Reload
// applies them.
func (p *Postgres) SetHBA(lines []string) error { return p.writeHBA(lines) }

// LetIn lets a system user in as a role by the Unix socket, and nobody else: with
// the lines that watchdog/role.sql tells. Reload applies it.
func (p *Postgres) LetIn(user, role string) error {
	hba, err := os.ReadFile(filepath.Join(p.DataDir, "pg_hba.conf"))
	if err != nil {
		return err
	}
	role = pgx.Identifier{role}.Sanitize()
	return errors.Join(
		p.writeFile("pg_hba.conf", "local postgres "+role+" peer map=pgwatchdog\n"+string(hba)),
		p.writeFile("pg_ident.conf", "pgwatchdog "+user+" "+role+"\n"))
}

// SetConf appends settings to postgresql.conf, where the last line of a name
// wins. Reload or Restart applies them.
func (p *Postgres) SetConf(conf map[string]string) error {
	path := filepath.Join(p.DataDir, "postgresql.conf")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(conf[name], "'", "''"))
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Close())
}

// writeFile replaces a file of the data directory.
func (p *Postgres) writeFile(name, text string) error {
	path := filepath.Join(p.DataDir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	uid, gid, err := lookupUser(postgresUser)
	if err != nil {
		return err
	}
	return os.Chown(path, int(uid), int(gid))
}

// Start starts the server and waits until it accepts connections.
func (p *Postgres) Start(ctx context.Context) (err error) {
	if err := waitUnused(ctx, p.Host.cgroup, p.DataDir); err != nil {
		return err
	}
	p.process, err = p.Host.Start(Spec{
		Name: p.Name, Path: filepath.Join(p.bin, "postgres"), Args: []string{"-D", p.DataDir},
		User: postgresUser, Dir: "/", Env: []string{"LC_ALL=C"},
	})
	if err != nil {
		return err
	}
	return p.WaitReady(ctx)
}

// WaitReady waits until the server answers a query.
func (p *Postgres) WaitReady(ctx context.Context) error {
	var last error
	err := poll(ctx, 30*time.Second, "instance "+p.Name+" on "+p.Host.Name, func() (bool, error) {
		if !p.process.Running() {
			log, _ := p.process.Log()
			return false, fmt.Errorf("instance %s on %s ended: %w\n%s", p.Name, p.Host.Name, p.process.err, tail(log, 20))
		}
		if !p.saysReady() {
			return false, nil
		}
		last = p.Exec(ctx, "SELECT")
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// saysReady reports what the postmaster says in its lock file, lines 1 and 8 (LOCK_FILE_LINE_*
// in pidfile.h), as pg_ctl does: to be refused while it starts takes a process each time.
func (p *Postgres) saysReady() bool {
	text, err := os.ReadFile(filepath.Join(p.DataDir, "postmaster.pid"))
	lines := strings.Split(string(text), "\n")
	return err == nil && len(lines) >= 8 && lines[0] == strconv.Itoa(p.process.Pid()) && strings.TrimSpace(lines[7]) == "ready"
}

// Program is the path of one of PostgreSQL's programs, of the server's version.
func (p *Postgres) Program(name string) string { return filepath.Join(p.bin, name) }

// Process is the postmaster of the latest start.
func (p *Postgres) Process() *Process { return p.process }

// StopMode is how a server is asked to stop; see pg_ctl(1).
type StopMode string

// The modes of pg_ctl stop.
const (
	Smart     StopMode = "smart"
	Fast      StopMode = "fast"
	Immediate StopMode = "immediate"
)

var stopSignals = map[StopMode]syscall.Signal{
	Smart: syscall.SIGTERM, Fast: syscall.SIGINT, Immediate: syscall.SIGQUIT,
}

// Stop stops the server and waits for its end.
func (p *Postgres) Stop(ctx context.Context, mode StopMode) error {
	sig, ok := stopSignals[mode]
	if !ok {
		return fmt.Errorf("stop mode %q: expected smart, fast or immediate", mode)
	}
	p.dropKept(ctx)
	if err := p.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.process.wait(ctx)
}

// Kill9 kills the postmaster alone, as the kernel's out-of-memory killer does;
// its children end when they notice.
func (p *Postgres) Kill9(ctx context.Context) (Effect, error) { return p.process.Kill(ctx) }

// Restart stops the server with mode fast and starts it again.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.Stop(ctx, Fast); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Reload makes the server read its configuration files again.
func (p *Postgres) Reload() error { return p.process.Signal(syscall.SIGHUP) }

// Addr returns the address that other hosts reach the instance at.
func (p *Postgres) Addr() netip.AddrPort { return netip.AddrPortFrom(p.Host.Addr4, p.Port) }

// DSN is the connection string of the Unix socket, which works from every
// namespace, as superuser.
func (p *Postgres) DSN() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", p.SocketDir, p.Port)
}

// CreateRole makes a role that may log in and is a member of others.
func (p *Postgres) CreateRole(ctx context.Context, name string, memberOf ...string) error {
	sql := "CREATE ROLE " + pgx.Identifier{name}.Sanitize() + " LOGIN"
	for i, role := range memberOf {
		if i == 0 {
			sql += " IN ROLE "
		} else {
			sql += ", "
		}
		sql += pgx.Identifier{role}.Sanitize()
	}
	return p.Exec(ctx, sql)
}
