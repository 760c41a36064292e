// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

const (
	complaintPeriod  = time.Minute // for the same line again
	complaintSpacing = time.Second // for another line about the same thing
)

// complaint is the last line about one thing.
type complaint struct {
	text string // empty when that was solved
	at   mono.Instant
}

// complain writes a line about one thing (check, settings, directory, postmaster)
// unless it was written a short while ago, so that trouble at every check is one
// line a minute.
func (w *watch) complain(level slog.Level, thing, message string, err error, args ...any) {
	args = append(args, "err", Brief(err))
	if hint := Advice(err); hint != "" {
		args = append(args, "hint", hint)
	}
	text, now := message+": "+gist(err), clock.Now()
	last, told := w.complaints[thing]
	age := now.Sub(last.at)
	if told && (age < complaintSpacing || last.text == text && age < complaintPeriod) {
		return
	}
	w.complaints[thing] = complaint{text: text, at: now}
	w.log.Log(w.ctx, level, message, args...)
}

// solved lets the next complaint about the thing be a new one.
func (w *watch) solved(thing string) {
	if last, told := w.complaints[thing]; told {
		w.complaints[thing] = complaint{at: last.at}
	}
}

// gist is what tells one trouble from another: the first line, which names whom the
// driver could not reach, and what kind of trouble that was; not the lines below it,
// in which ports differ each time.
func gist(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	code := ""
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = pgErr.Code
	}
	return fmt.Sprint(line, classify(err), code)
}
