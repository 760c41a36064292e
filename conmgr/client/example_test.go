// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgconmgr/pgconmgr/conmgr/client"
)

// A pool that follows the primary. conmgr runs on this host; a postmaster behind
// it in the list is used while it is away.
func ExampleNewPool() {
	ctx := context.Background()
	pool, err := client.NewPool(ctx, "postgres://app@localhost:27546,db1.example.org:5432/shop?target_session_attrs=read-write&pool_max_conns=20")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	var n int
	err = pool.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n)
	if fault, ok := errors.AsType[*client.FaultError](err); ok {
		fmt.Println("lost", fault.Instance, "because of", fault.Reason, "- the next statement goes to the new primary")
	}
}

// What a connection gets when its instance is lost.
func ExampleFaultError() {
	connString, loseInstance, stop := client.WorldForExample() // localhost, the port of conmgr
	defer stop()
	ctx := context.Background()
	conn, err := client.Connect(ctx, connString)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	watch := client.WatchOf(conn.PgConn())
	fmt.Println("connected to", watch.Instance().Host)

	loseInstance()
	<-watch.Done() // a blocked call would end now
	_, err = conn.Exec(ctx, "SELECT pg_sleep(3600)")
	if fault, ok := errors.AsType[*client.FaultError](err); ok {
		fmt.Printf("lost %s: %s after %v, SQLSTATE %s\n", fault.Instance.Host, fault.Reason, fault.Silence, fault.SQLState())
	}
	fmt.Println("a fault:", errors.Is(err, client.ErrFault), "- of conmgr:", errors.Is(err, client.ErrConmgrLost))
	// Output:
	// connected to db0
	// lost db0: timeout after 1.5s, SQLSTATE 57P01
	// a fault: true - of conmgr: false
}

// database/sql, with a standby for reports.
func ExampleOpenDB() {
	db, err := client.OpenDB("host=localhost port=27546 user=report dbname=shop target_session_attrs=prefer-standby")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	_ = db.QueryRow("SELECT now()").Scan(new(sql.NullTime))
}

// A pool that a framework makes: prepare its configuration.
func ExampleConfigurePool() {
	cfg, err := client.ParsePoolConfig("host=localhost port=27546 dbname=shop target_session_attrs=primary")
	if err != nil {
		fmt.Println(err)
		return
	}
	client.ConfigurePool(cfg)
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err == nil {
		pool.Close()
	}
}

// conmgr runs as another system user, and every fault is counted.
func ExampleDialer() {
	var faults atomic.Int64
	d := &client.Dialer{User: "conmgr", OnFault: func(*client.FaultError) { faults.Add(1) }}
	cfg, err := client.ParseConfig("host=localhost port=27546 dbname=shop connect_timeout=2")
	if err != nil {
		fmt.Println(err)
		return
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // any setting of pgx
	conn, err := d.ConnectConfig(context.Background(), cfg)
	if err == nil {
		_ = conn.Close(context.Background())
	}
}
