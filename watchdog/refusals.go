// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/key"
	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// refusals logs refused sessions, at most one line a minute for each cause.
type refusals struct {
	log  *slog.Logger
	last map[string]mono.Instant // by cause; the causes are ours, so there are few
	kept map[string]int          // refusals since the last line
}

const refusalsEvery = time.Minute

func (r *refusals) note(now mono.Instant, remote netip.Addr, why, hint string, limit uint32) {
	if r.last == nil {
		r.last, r.kept = map[string]mono.Instant{}, map[string]int{}
	}
	last, ok := r.last[why]
	if ok && now.Sub(last) < refusalsEvery {
		r.kept[why]++
		return
	}
	args := []any{"peer", remote, "why", why}
	if limit != 0 {
		args = append(args, "limit", limit)
	}
	if hint != "" {
		args = append(args, "hint", hint)
	}
	if more := r.kept[why]; more > 0 {
		args = append(args, "more_since_last", more)
	}
	r.log.Warn("conmgr refused", args...)
	r.last[why], r.kept[why] = now, 0
}

func refusalText(code wire.Code) (why, hint string) {
	switch code {
	case wire.CodeFull:
		return "full", "increase watchdog.max_heartbeat_connections"
	case wire.CodeInterval:
		return "its heartbeat_interval is too short", "see watchdog.min_heartbeat_interval"
	case wire.CodeTimeout:
		return "its heartbeat_timeout is out of range", "see watchdog.min_heartbeat_interval and watchdog.max_heartbeat_timeout"
	case wire.CodeAddress:
		return "its address is not listed", "see watchdog.clients"
	case wire.CodePerAddress:
		return "too many sessions of one address", "is one conmgr started again and again?"
	}
	return "not accepted", ""
}

// turnedAwayText says why a HELLO was refused before anything of it was weighed.
func turnedAwayText(err error) (why, hint string) {
	switch {
	case errors.Is(err, wire.ErrVersion):
		return "it speaks another version of the heartbeat protocol", "run the same version of pgconmgr on both hosts"
	case errors.Is(err, key.ErrMissing):
		return "it has no key", "give its conmgr a heartbeat_key_file with a key of ours"
	case errors.Is(err, key.ErrOwnNone):
		return "it has a key, and this pgwatchdog has none", "start pgwatchdog with --key-file"
	case errors.Is(err, key.ErrUnknown):
		return "its key is not in our key file", "see the order of steps for changing a key"
	case errors.Is(err, key.ErrSecret):
		return "its key has the id of one of ours, and another secret", "a new key needs a new id"
	case errors.Is(err, key.ErrAddress):
		return "its key may not be used from its address", "see the addresses behind the key in our key file"
	}
	return err.Error(), ""
}
