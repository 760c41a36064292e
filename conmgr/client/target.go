// SPDX-License-Identifier: Apache-2.0

package client

import (
	"net/url"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// targets are the checks by which pgx keeps target_session_attrs.
var targets = map[uintptr]string{
	pointerTo(pgconn.ValidateConnectTargetSessionAttrsReadWrite):     "read-write",
	pointerTo(pgconn.ValidateConnectTargetSessionAttrsReadOnly):      "read-only",
	pointerTo(pgconn.ValidateConnectTargetSessionAttrsPrimary):       "primary",
	pointerTo(pgconn.ValidateConnectTargetSessionAttrsStandby):       "standby",
	pointerTo(pgconn.ValidateConnectTargetSessionAttrsPreferStandby): "prefer-standby",
}

func pointerTo(f pgconn.ValidateConnectFunc) uintptr { return reflect.ValueOf(f).Pointer() }

// targetOf returns what to ask conmgr for: target_session_attrs. A check of the
// caller's own is not known to conmgr; it is offered any instance.
func targetOf(cfg *pgconn.Config) string {
	if cfg.ValidateConnect != nil {
		if name, ok := targets[pointerTo(cfg.ValidateConnect)]; ok {
			return name
		}
	}
	return "any"
}

// ParseConfig is pgx.ParseConfig that takes prefer-read, the older spelling of
// prefer-standby, for target_session_attrs too, wherever that was set.
func ParseConfig(connString string) (*pgx.ConnConfig, error) {
	return parse(connString, pgx.ParseConfig)
}

// ParsePoolConfig is pgxpool.ParseConfig that takes prefer-read as ParseConfig
// does.
func ParsePoolConfig(connString string) (*pgxpool.Config, error) {
	return parse(connString, pgxpool.ParseConfig)
}

// parse tries once more with the newer spelling when pgx stumbles on the older
// one. Only pgx knows whether it came from the string, the environment or a
// service file; the string wins.
func parse[C any](connString string, by func(string) (C, error)) (C, error) {
	cfg, err := by(connString)
	if err != nil && strings.HasSuffix(err.Error(), ": unknown target_session_attrs value: prefer-read") {
		return by(override(connString, "target_session_attrs", "prefer-standby"))
	}
	return cfg, err
}

// override adds parameters, as name and value, to a connection string of either
// form. The last mention of a parameter counts.
func override(connString string, pairs ...string) string {
	var b strings.Builder
	b.WriteString(connString)
	isURL := strings.HasPrefix(connString, "postgres://") || strings.HasPrefix(connString, "postgresql://")
	sep := "?"
	if isURL && hasQuery(connString) {
		sep = "&"
	}
	for i := 0; i < len(pairs); i += 2 {
		if isURL {
			b.WriteString(sep + pairs[i] + "=" + strings.ReplaceAll(url.QueryEscape(pairs[i+1]), "+", "%20"))
			sep = "&"
			continue
		}
		value := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(pairs[i+1])
		b.WriteString(" " + pairs[i] + "='" + value + "'")
	}
	return b.String()
}

// hasQuery reports whether a URL has parameters. As in libpq, an @ before the
// first slash ends the credentials, in which a question mark means nothing.
func hasQuery(connString string) bool {
	_, rest, _ := strings.Cut(connString, "://")
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		rest = rest[i+1:]
	}
	return strings.Contains(rest, "?")
}
