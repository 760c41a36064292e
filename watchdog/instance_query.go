// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// checkSQL is the state check: one row, all texts, no function that acts.
//
// The timeline of a primary is in the name of the segment it writes (first 8 hex
// digits); its control file is stale until the checkpoint after a promotion. A
// standby has no function that tells its timeline, so it is the highest of what
// the WAL receiver got (pg_monitor sees it, others see NULL), what recovery must
// reach, and what the last restart point was on: a timeline never falls.
//
// Recovery ends once and never begins again in the life of a postmaster, so the
// CASE cannot ask a standby for the functions that only a primary has. The cast
// to int8 rounds both the double of version 13 and the numeric of 14 on.
const checkSQL = `SELECT
 s.r::pg_catalog.text,
 pg_catalog.current_setting('default_transaction_read_only'),
 CASE WHEN s.r THEN (GREATEST(
   (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver),
   (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
   (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())))::pg_catalog.text
 ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
 (CASE WHEN s.r THEN COALESCE(pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_wal_receive_lsn(), '0/0')
 ELSE pg_catalog.pg_current_wal_insert_lsn() END)::pg_catalog.text,
 (SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text,
 (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8::pg_catalog.text,
 (EXTRACT(epoch FROM pg_catalog.pg_conf_load_time()) * 1000000)::pg_catalog.int8::pg_catalog.text,
 pg_catalog.current_setting('port')
FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS s`

const (
	checkName    = "pgwatchdog_check"
	checkColumns = 8
)

// observation is what one state check found.
type observation struct {
	attribute wire.Attribute
	readOnly  bool
	timeline  uint32
	wal       uint64
	systemID  uint64
	startUS   int64
	loadUS    int64 // pg_conf_load_time, µs since the Unix epoch
	port      uint16
}

// errOdd marks an answer that no PostgreSQL gives.
var errOdd = errors.New("unexpected answer to the state check")

// check runs the prepared state check.
func check(ctx context.Context, conn *pgconn.PgConn) (observation, error) {
	result := conn.ExecPrepared(ctx, checkName, nil, nil, nil).Read()
	if result.Err != nil {
		return observation{}, result.Err
	}
	if len(result.Rows) != 1 {
		return observation{}, fmt.Errorf("%w: expected one row, found %d", errOdd, len(result.Rows))
	}
	return parseCheck(result.Rows[0])
}

// parseCheck reads the row of checkSQL. It trusts nothing: a NULL, a missing
// column or a value out of range is an error that wraps errOdd.
func parseCheck(row [][]byte) (observation, error) {
	var o observation
	if len(row) != checkColumns {
		return o, fmt.Errorf("%w: expected %d columns, found %d", errOdd, checkColumns, len(row))
	}
	for i, read := range []func(string) error{
		o.readRecovery, o.readReadOnly, o.readTimeline, o.readWAL, o.readSystemID, o.readStart, o.readLoad, o.readPort,
	} {
		if row[i] == nil {
			return o, fmt.Errorf("%w: column %d is NULL", errOdd, i+1)
		}
		if err := read(string(row[i])); err != nil {
			return o, fmt.Errorf("%w: column %d is %.40q", errOdd, i+1, row[i])
		}
	}
	return o, nil
}

func (o *observation) readRecovery(s string) error {
	standby, err := parseTruth(s)
	o.attribute = wire.AttributePrimary
	if standby {
		o.attribute = wire.AttributeStandby
	}
	return err
}

func (o *observation) readReadOnly(s string) (err error) {
	o.readOnly, err = parseTruth(s)
	return err
}

func (o *observation) readTimeline(s string) error {
	base := 10
	if o.attribute == wire.AttributePrimary {
		if len(s) != 24 {
			return strconv.ErrSyntax
		}
		s, base = s[:8], 16
	}
	n, err := strconv.ParseUint(s, base, 32)
	o.timeline = uint32(n)
	return err
}

func (o *observation) readWAL(s string) error {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return strconv.ErrSyntax
	}
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return err
	}
	l, err := strconv.ParseUint(low, 16, 32)
	o.wal = h<<32 | l
	return err
}

// PostgreSQL shows the system identifier as a signed bigint.
func (o *observation) readSystemID(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	o.systemID = uint64(n)
	return err
}

func (o *observation) readStart(s string) (err error) {
	o.startUS, err = strconv.ParseInt(s, 10, 64)
	return err
}

func (o *observation) readLoad(s string) (err error) {
	o.loadUS, err = strconv.ParseInt(s, 10, 64)
	return err
}

func (o *observation) readPort(s string) error {
	n, err := strconv.ParseUint(s, 10, 16)
	o.port = uint16(n)
	return err
}

func parseTruth(s string) (bool, error) {
	switch s {
	case "true", "on":
		return true, nil
	case "false", "off":
		return false, nil
	}
	return false, strconv.ErrSyntax
}
