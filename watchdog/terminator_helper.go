// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// helperFunction is the extension's function that ends a superuser's session, which
// a role with pg_signal_backend may not.
const helperFunction = "pgx_watchdog_terminate"

// helperSQL finds the function wherever the extension is, and only as a part of it:
// everybody can make a function of that name, but only a superuser the extension.
const helperSQL = `SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.has_function_privilege(p.oid, 'EXECUTE')::pg_catalog.text
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
 AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
JOIN pg_catalog.pg_proc p ON p.oid = d.objid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE e.extname = 'watchdog' AND p.proname = $1`

var (
	errNoHelper   = errors.New("CREATE EXTENSION watchdog in the agent's database would let it")
	errMayNotHelp = errors.New("GRANT EXECUTE ON FUNCTION " + helperFunction + " TO the agent's role would let it")
)

// findHelper returns the statement that ends one session by the helper, or why
// there is none.
func findHelper(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	rows, err := queryTexts(ctx, conn, 3, helperSQL, helperFunction)
	switch {
	case err != nil:
		return "", err
	case len(rows) == 0:
		return "", errNoHelper
	case len(rows) > 1 || len(rows[0]) != 2 || rows[0][0] == nil || rows[0][1] == nil:
		return "", fmt.Errorf("%w to where the helper is", errOddly)
	case *rows[0][1] != "true":
		return "", errMayNotHelp
	}
	return "SELECT " + *rows[0][0] + "." + helperFunction + "($1::pg_catalog.int4, $2::pg_catalog.timestamptz, $3::pg_catalog.inet)", nil
}

// helpWith has the helper end those of the targets that were refused because they
// are superusers' sessions. The function itself compares all three facts again.
func (t *Terminator) helpWith(ctx context.Context, r *run, batch []backend) error {
	var refused []*target
	for _, b := range batch {
		if target := r.targets[b.key()]; target.refused && target.superuser {
			refused = append(refused, target)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	conn := t.conn.conn
	sql, err := findHelper(ctx, conn)
	for _, target := range refused {
		target.helper = err
		if err == nil {
			target.helper = target.help(ctx, conn, sql)
		}
		if conn.IsClosed() { // the next connection tries again
			target.refused = false
			return errors.Join(errConnClosed, target.helper)
		}
	}
	return nil
}

// help ends the session. One that the function does not find is gone, or is seen
// again and gets another try.
func (t *target) help(ctx context.Context, conn *pgconn.PgConn, sql string) error {
	start := t.start.UTC().Format("2006-01-02 15:04:05.000000Z07:00")
	params := [][]byte{[]byte(strconv.Itoa(int(t.pid))), []byte(start), []byte(t.addr)}
	result := conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	if result.Err != nil {
		return result.Err
	}
	t.refused = false
	if len(result.Rows) == 1 && len(result.Rows[0]) == 1 && string(result.Rows[0][0]) == "t" {
		t.signalled, t.err = true, nil
	}
	return nil
}
