// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The ways, and the ports of conmgr.
const (
	straight = "straight"
	pass     = "pass"
	proxy    = "proxy"
	direct   = "direct"

	portConsole = 27546
	portPass    = 27551
)

// world is a server as pgx wants it, and conmgr on the host of the tests.
type world struct {
	client, db *agenttest.Host
	server     *agenttest.Postgres
	rootcert   string
	certs      string // of pgx's own making, for clients
	cm         *agenttest.Conmgr
}

func newWorld(ctx context.Context, lab *agenttest.Lab, dir string) (*world, error) {
	w := &world{client: lab.Host("client"), db: lab.Host("db"), certs: filepath.Join(dir, "pgx", "testsetup")}
	net := w.db.Addr4.String() + "/24"
	var err error
	w.server, err = w.db.Postgres(ctx, agenttest.PostgresOptions{
		Conf: map[string]string{"max_connections": "200"},
		HBA: []string{ // testsetup/pg_hba.conf of pgx
			"host all pgx_md5 " + net + " md5", "host all pgx_scram " + net + " scram-sha-256",
			"host all pgx_pw " + net + " password", "hostssl all pgx_ssl " + net + " scram-sha-256",
			"hostssl all pgx_sslcert " + net + " cert",
		},
	})
	if err != nil {
		return nil, err
	}
	if err := w.setUp(ctx); err != nil {
		return nil, err
	}
	return w, w.startConmgr(ctx)
}

// setUp does what ci/setup_test.bash of pgx does. The server's certificate is
// ours, since pgx's is for localhost only.
func (w *world) setUp(ctx context.Context) (err error) {
	if _, err := output(ctx, w.certs, "go", "run", "generate_certs.go"); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(w.certs, "ca.pem"))
	if err != nil {
		return err
	}
	// Beside server.crt, which belongs to the server's user.
	if err := os.WriteFile(filepath.Join(w.server.DataDir, "root.crt"), ca, 0o644); err != nil {
		return err
	}
	if err := w.server.SetConf(map[string]string{"ssl_ca_file": "root.crt"}); err != nil {
		return err
	}
	if w.rootcert, err = w.server.EnableTLS(); err != nil {
		return err
	}
	if err := w.server.Exec(ctx, "CREATE DATABASE pgx_test"); err != nil {
		return err
	}
	_, err = output(ctx, w.certs, "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", w.server.SocketDir, "-U", "postgres",
		"-f", "postgresql_setup.sql", "pgx_test")
	return err
}

// startConmgr starts the daemons with times that a busy machine does not reach.
func (w *world) startConmgr(ctx context.Context) error {
	if _, err := w.server.StartWatchdog(ctx, agenttest.WatchdogOptions{}); err != nil {
		return err
	}
	var err error
	w.cm, err = w.client.NewConmgr(agenttest.ConmgrOptions{
		Instances: []*agenttest.Postgres{w.server},
		Params: map[string]string{
			"heartbeat_interval": "1s", "heartbeat_timeout": "30s",
			"proxy_listen": fmt.Sprintf("'%d:any'", portPass),
		},
	})
	if err != nil {
		return err
	}
	if err := w.cm.Start(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		text, err := w.cm.Ctl(ctx, "status", "-i", "instance")
		if err == nil && strings.Contains(text, "primary") {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("conmgr does not find the server: %s", text), err)
		case <-time.After(agenttest.Pause(time.Second)):
		}
	}
}

// environment holds the connection strings by which pgx finds its server; they
// are those of its ci.yml.
func (w *world) environment(way string) []string {
	at := "host=localhost port=" + map[string]string{
		pass: fmt.Sprint(portPass), proxy: fmt.Sprint(portConsole), direct: fmt.Sprint(portConsole),
	}[way]
	if way == straight {
		at = "host=" + w.db.Addr4.String()
	}
	verified := " sslmode=verify-full sslrootcert=" + w.rootcert
	base := at + " dbname=pgx_test password=secret "
	user := ""
	if way == direct {
		user = "nobody"
	}
	return append(os.Environ(),
		directEnv+"="+user, "PGX_SSL_PASSWORD=certpw",
		"PGX_TEST_DATABASE="+base+"user=pgx_md5",
		"PGX_TEST_TCP_CONN_STRING="+base+"user=pgx_md5",
		"PGX_TEST_MD5_PASSWORD_CONN_STRING="+base+"user=pgx_md5",
		"PGX_TEST_PLAIN_PASSWORD_CONN_STRING="+base+"user=pgx_pw",
		"PGX_TEST_SCRAM_PASSWORD_CONN_STRING="+base+"user=pgx_scram channel_binding=disable",
		"PGX_TEST_SCRAM_PLUS_CONN_STRING="+base+"user=pgx_ssl channel_binding=require"+verified,
		"PGX_TEST_TLS_CONN_STRING="+base+"user=pgx_ssl channel_binding=disable"+verified,
		"PGX_TEST_TLS_CLIENT_CONN_STRING="+at+" dbname=pgx_test user=pgx_sslcert"+verified+
			" sslcert="+filepath.Join(w.certs, "pgx_sslcert.crt")+" sslkey="+filepath.Join(w.certs, "pgx_sslcert.key"),
		"PGX_TEST_UNIX_SOCKET_CONN_STRING=host="+w.server.SocketDir+" dbname=pgx_test user=postgres",
	)
}

// asked is how many connects in direct mode conmgr has served.
func (w *world) asked(ctx context.Context) (n int, err error) {
	cfg, err := pgx.ParseConfig("host=" + w.cm.Dir + " user=pgxsuite dbname=conmgr default_query_exec_mode=simple_protocol")
	if err != nil {
		return 0, err
	}
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.client.Dial(ctx, "unix", filepath.Join(w.cm.Dir, "conmgr.sock"))
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SHOW STATS")
	if err != nil {
		return 0, err
	}
	var name string
	var value int
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if name == "targets_found" {
			n = value
		}
		return nil
	})
	return n, err
}
