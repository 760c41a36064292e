// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// refusals logs refused sessions, at most one line a minute for each code.
type refusals struct {
	log  *slog.Logger
	last map[wire.Code]mono.Instant
	kept map[wire.Code]int // refusals since the last line
}

const refusalsEvery = time.Minute

func (r *refusals) note(now mono.Instant, remote netip.Addr, code wire.Code, limit uint32) {
	if r.last == nil {
		r.last, r.kept = map[wire.Code]mono.Instant{}, map[wire.Code]int{}
	}
	last, ok := r.last[code]
	if ok && now.Sub(last) < refusalsEvery {
		r.kept[code]++
		return
	}
	why, hint := refusalText(code)
	args := []any{"peer", remote, "why", why}
	if limit != 0 {
		args = append(args, "limit", limit)
	}
	if hint != "" {
		args = append(args, "hint", hint)
	}
	if more := r.kept[code]; more > 0 {
		args = append(args, "more_since_last", more)
	}
	r.log.Warn("conmgr refused", args...)
	r.last[code], r.kept[code] = now, 0
}

func refusalText(code wire.Code) (why, hint string) {
	switch code {
	case wire.CodeVersion:
		return "it speaks another version of the heartbeat protocol", "run the same version of pgconmgr on both hosts"
	case wire.CodeFull:
		return "full", "increase watchdog.max_heartbeat_connections"
	case wire.CodeInterval:
		return "its heartbeat_interval is too short", "see watchdog.min_heartbeat_interval"
	case wire.CodeTimeout:
		return "its heartbeat_timeout is out of range", "see watchdog.max_heartbeat_timeout"
	case wire.CodeAddress:
		return "its address is not listed", "see watchdog.clients"
	case wire.CodePerAddress:
		return "too many sessions of one address", "is one conmgr started again and again?"
	}
	return "not accepted", ""
}
