// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
	"github.com/pgconmgr/pgconmgr/scripts/bench/machine"
)

// ways are how the instance is reached. "again" is straight once more: what that
// differs by, nobody causes.
var ways = []string{"straight", "direct", "proxy", "pass-through", "haproxy", "pgbouncer", "again"}

const (
	copyRows    = 100_000 // of 1,000 bytes and a line feed
	connects    = 100     // one after the other
	stormFolk   = 4
	selectFolk  = 8
	parallelism = 2
	warming     = time.Second // of select, not counted
)

// env is the environment that leads a program of libpq a way.
func (w *world) env(way string) []string {
	host, port := "127.0.0.1", 0
	switch way {
	case "straight", "again":
		host, port = w.db1.Addr4.String(), 5432
	case "direct", "proxy":
		port = portConsole
	case "pass-through":
		port = portPrimary
	case "haproxy":
		port = portHAProxy
	case "pgbouncer":
		port = portPgBouncer
	}
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "HOME=/nonexistent", "PGUSER=postgres", "PGDATABASE=postgres",
		"PGHOST=" + host, fmt.Sprintf("PGPORT=%d", port), "PGSSLMODE=disable", "PGGSSENCMODE=disable",
	}
	if way == "direct" {
		env = append(env, "LD_PRELOAD="+w.companion, "PGTARGETSESSIONATTRS=primary")
	}
	return env
}

// command prepares a program of the client host.
func (w *world) command(ctx context.Context, env []string, args ...string) *agenttest.Cmd {
	cmd := w.client.Command(ctx, args[0], args[1:]...)
	cmd.User, cmd.Dir, cmd.Env = user, "/", env
	return cmd
}

func (w *world) psql(ctx context.Context, way string, args ...string) (string, error) {
	out, err := w.command(ctx, w.env(way), append([]string{"psql", "-X", "-A", "-t"}, args...)...).Output()
	return string(out), err
}

// warm goes each way once, and makes sure that it leads to the instance.
func (w *world) warm(ctx context.Context) error {
	for _, way := range ways {
		out, err := w.psql(ctx, way, "-c", "SELECT host(inet_server_addr()) FROM big LIMIT 1")
		if err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		if got := strings.TrimSpace(out); got != w.db1.Addr4.String() {
			return fmt.Errorf("%s leads to %q: expected %v", way, got, w.db1.Addr4)
		}
	}
	return w.primary.Exec(ctx, "SELECT count(*), sum(abalance) FROM pgbench_accounts; SELECT count(*) FROM big")
}

// outcome is what a measurement yields: its figure, and pgbench's transactions.
type outcome struct {
	value        float64
	transactions float64
}

// measure goes a way for one part.
func (w *world) measure(ctx context.Context, part, way string, length time.Duration) (outcome, error) {
	seconds := strconv.Itoa(int(length.Seconds()))
	switch part {
	case "select":
		seconds = strconv.Itoa(int((warming + length).Seconds()))
		return w.pgbench(ctx, way, steady, "-S", "-c", strconv.Itoa(selectFolk), "-j", strconv.Itoa(parallelism), "-T", seconds, "-P", "1")
	case "storm":
		return w.pgbench(ctx, way, tps, "-C", "-c", strconv.Itoa(stormFolk), "-j", strconv.Itoa(parallelism), "-T", seconds, "-f", w.one())
	case "connect":
		return w.pgbench(ctx, way, latency, "-C", "-c", "1", "-t", strconv.Itoa(connects), "-f", w.one())
	}
	return w.copyOut(ctx, way)
}

// spent is the processor time so far of what stands between the client and the
// instance; 0 for nobody.
func (w *world) spent(way string) (time.Duration, error) {
	p := w.between[way]
	if p == nil {
		return 0, nil
	}
	return machine.CPUTime(p.Pid())
}

// Figures of pgbench: transactions per second, the same of each second, milliseconds
// for a transaction with its connection, and the number of all.
var (
	tps       = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	steady    = regexp.MustCompile(`(?m)^progress: [0-9.]+ s, ([0-9.]+) tps`)
	latency   = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	processed = regexp.MustCompile(`(?m)^number of transactions actually processed: ([0-9]+)`)
)

func (w *world) pgbench(ctx context.Context, way string, figure *regexp.Regexp, args ...string) (o outcome, err error) {
	args = append([]string{w.primary.Program("pgbench"), "-n"}, args...)
	text, err := w.command(ctx, w.env(way), args...).CombinedOutput() // progress is among the errors
	if err != nil {
		return outcome{}, fmt.Errorf("pgbench: %w: %s", err, text)
	}
	if o.value, err = mean(string(text), figure); err != nil {
		return outcome{}, err
	}
	o.transactions, err = mean(string(text), processed)
	return o, err
}

// mean is that of all figures in a text, but of those of single seconds without the
// first: a new backend has to read the catalogs and to map the shared buffers, which
// PgBouncer's, being of its pool, have done before.
func mean(text string, figure *regexp.Regexp) (float64, error) {
	found := figure.FindAllStringSubmatch(text, -1)
	if figure == steady && len(found) > 0 {
		found = found[1:]
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("pgbench wrote no %v: %s", figure, text)
	}
	var sum float64
	for _, f := range found {
		x, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			return 0, err
		}
		sum += x
	}
	return sum / float64(len(found)), nil
}

// one is a script with one small statement.
func (w *world) one() string {
	file := filepath.Join(w.dir, "one.sql")
	_ = os.WriteFile(file, []byte("SELECT 1;\n"), 0o644)
	return file
}

// copyOut returns megabytes per second of a whole run of psql.
func (w *world) copyOut(ctx context.Context, way string) (outcome, error) {
	start := time.Now()
	if _, err := w.psql(ctx, way, "-o", "/dev/null", "-c", "COPY big TO STDOUT"); err != nil {
		return outcome{}, err
	}
	return outcome{value: copyRows * 1001 / 1e6 / time.Since(start).Seconds()}, nil
}

// hostList connects by a list of libpq whose first host is dead, with the shortest
// timeout that libpq takes, and returns the milliseconds of a whole run of psql.
func (w *world) hostList(ctx context.Context) (float64, error) {
	env := append(w.env("straight"), fmt.Sprintf("PGHOST=%v,%v", w.db0.Addr4, w.db1.Addr4), "PGPORT=5432",
		"PGCONNECT_TIMEOUT=2", "PGTARGETSESSIONATTRS=primary")
	start := time.Now()
	_, err := w.command(ctx, env, "psql", "-X", "-c", "SELECT 1").Output()
	return time.Since(start).Seconds() * 1000, err
}
