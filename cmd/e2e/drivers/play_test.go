// SPDX-License-Identifier: Apache-2.0

package drivers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// played is one case of the programs in this binary.
type played struct{ name, port, sslmode, options string }

// dsn is the connection string of libpq and pgx.
func (c played) dsn(program string) string {
	s := fmt.Sprintf("host=localhost port=%s dbname=postgres user=%s password=%s sslrootcert=%s application_name=%s/%s connect_timeout=10",
		c.port, os.Getenv("DRIVER_USER"), os.Getenv("DRIVER_PASSWORD"), os.Getenv("DRIVER_ROOTCERT"), program, c.name)
	if c.sslmode != "" {
		s += " sslmode=" + c.sslmode
	}
	if c.options != "" {
		s += " options='" + c.options + "'"
	}
	return s
}

var telling sync.Mutex

func (c played) tell(event, detail string) {
	telling.Lock()
	defer telling.Unlock()
	fmt.Printf("%s\t%s\t%s\n", c.name, event, strings.Join(strings.Fields(detail), " "))
}

// playAll plays all cases at once.
func playAll(args []string, play func(played) error) {
	var all sync.WaitGroup
	for _, arg := range args {
		fields := strings.Split(arg, ",")
		c := played{fields[0], fields[1], fields[2], fields[3]}
		all.Go(func() {
			if err := play(c); err != nil {
				c.tell("failed", err.Error())
			}
		})
	}
	all.Wait()
}

const (
	whereSQL   = "SELECT host(inet_server_addr())"
	standbySQL = "SELECT host(inet_server_addr()) || ' ' || pg_is_in_recovery()"
)

// retry tries for half a minute.
func retry(try func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func playPgx(c played) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, c.dsn("pgx"))
	if err != nil {
		return err
	}
	if c.options != "" {
		var where string
		if err := conn.QueryRow(ctx, standbySQL).Scan(&where); err != nil {
			return err
		}
		c.tell("standby", where)
		return conn.Close(ctx)
	}
	if err := queriesPgx(ctx, conn); err != nil {
		return err
	}
	c.tell("ready", "")
	_, err = conn.Exec(ctx, "SELECT pg_sleep(600)")
	if err == nil {
		return errors.New("the long statement ended without an error")
	}
	c.tell("lost", err.Error())
	var addr string
	err = retry(func() error {
		conn, err := pgx.Connect(ctx, c.dsn("pgx"))
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		return conn.QueryRow(ctx, whereSQL).Scan(&addr)
	})
	c.tell("again", addr)
	return err
}

func queriesPgx(ctx context.Context, conn *pgx.Conn) error {
	var n int
	if err := conn.QueryRow(ctx, "SELECT $1::int * 7", 6).Scan(&n); err != nil || n != 42 {
		return fmt.Errorf("query: %d, %w", n, err)
	}
	if _, err := conn.Prepare(ctx, "p", "SELECT $1::int + 1"); err != nil {
		return err
	}
	for i := range 10 {
		if err := conn.QueryRow(ctx, "p", i).Scan(&n); err != nil || n != i+1 {
			return fmt.Errorf("prepared statement: %d, %w", n, err)
		}
	}
	if err := cancelledPgx(ctx, conn); err != nil {
		return err
	}
	return conn.QueryRow(ctx, "SELECT 1").Scan(&n)
}

func cancelledPgx(ctx context.Context, conn *pgx.Conn) error {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "SELECT pg_sleep(60)")
		ended <- err
	}()
	for pause := 200 * time.Millisecond; ; pause = time.Second {
		select {
		case err := <-ended:
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "57014" {
				return fmt.Errorf("the cancelled statement: %w", err)
			}
			return nil
		case <-time.After(pause):
			if err := conn.PgConn().CancelRequest(ctx); err != nil {
				return fmt.Errorf("cancel: %w", err)
			}
		}
	}
}

// psql prepares a run of statements.
func (c played) psql(statements ...string) *exec.Cmd {
	args := []string{"-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	return exec.Command("psql", append(args, c.dsn("psql"))...)
}

func playPsql(c played) error {
	if c.options != "" {
		out, err := c.psql(standbySQL).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		c.tell("standby", string(out))
		return nil
	}
	out, err := c.psql("SELECT 6 * 7", "PREPARE p AS SELECT $1::int + 1", "EXECUTE p(41)", "EXECUTE p(1)").CombinedOutput()
	if err != nil || string(out) != "42\n42\n2\n" {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := cancelledPsql(c); err != nil {
		return err
	}
	c.tell("ready", "")
	out, err = c.psql("SELECT pg_sleep(600)").CombinedOutput()
	if err == nil {
		return errors.New("the long statement ended without an error")
	}
	c.tell("lost", string(out))
	var addr []byte
	err = retry(func() (err error) {
		addr, err = c.psql(whereSQL).Output()
		return err
	})
	c.tell("again", string(addr))
	return err
}

// cancelledPsql interrupts psql as Ctrl-C does: it sends a cancel request.
func cancelledPsql(c played) error {
	cmd := c.psql(`\warn begun`, "SELECT pg_sleep(60)")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	text, ended := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(ended)
		var b [1000]byte
		for {
			n, err := stderr.Read(b[:])
			if err != nil {
				return
			}
			text <- string(b[:n])
		}
	}()
	said := <-text // it has set up its handler
	for pause := 200 * time.Millisecond; ; pause = time.Second {
		select {
		case more := <-text:
			said += more
		case <-time.After(pause):
			_ = cmd.Process.Signal(syscall.SIGINT)
		case <-ended:
			for len(text) > 0 {
				said += <-text
			}
			if cmd.Wait() == nil || !strings.Contains(said, "canceling statement due to user request") {
				return fmt.Errorf("the cancelled psql wrote %q", said)
			}
			return nil
		}
	}
}
