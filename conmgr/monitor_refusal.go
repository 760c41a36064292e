// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/peer"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// hintsEvery is the least time between two lines about refusals that were not
// proven: anybody on the path can make those, each with another reason.
const hintsEvery = time.Minute

// Refused implements peer.Handler.
func (w *watch) Refused(_ *peer.Session, r wire.Refuse, proven bool) {
	why := refusal(r, w.m.cfg)
	if !proven {
		why += " (not proven with our key, so the attempt goes on)"
		now := w.m.loop.Now()
		if !w.hinted.IsZero() && now.Sub(w.hinted) < hintsEvery {
			w.refused = why // shown, not logged
		} else if why != w.refused {
			w.hinted = now
		}
	}
	w.complain(&w.refused, slog.LevelError, "watchdog refuses the heartbeat", why)
}

// refusal tells a REFUSE in words: what the watchdog expects, and where.
func refusal(r wire.Refuse, cfg *Config) string {
	switch r.Code {
	case wire.CodeVersion:
		return fmt.Sprintf("it speaks another version of the heartbeat protocol; this conmgr speaks version %d", wire.Version)
	case wire.CodeFull:
		return fmt.Sprintf("it serves as many conmgrs as it may: expected fewer than watchdog.max_heartbeat_connections = %d", r.Limit)
	case wire.CodeInterval:
		return fmt.Sprintf("heartbeat_interval is %v: expected at least watchdog.min_heartbeat_interval = %d ms", cfg.HeartbeatInterval, r.Limit)
	case wire.CodeTimeout:
		if cfg.HeartbeatTimeout < time.Duration(r.Limit)*time.Millisecond {
			return fmt.Sprintf("heartbeat_timeout is %v: expected at least watchdog.min_heartbeat_interval = %d ms", cfg.HeartbeatTimeout, r.Limit)
		}
		return fmt.Sprintf("heartbeat_timeout is %v: expected at most watchdog.max_heartbeat_timeout = %d ms", cfg.HeartbeatTimeout, r.Limit)
	case wire.CodeAddress:
		return "the address of this host is not in watchdog.clients"
	case wire.CodePerAddress:
		return fmt.Sprintf("this address has %d sessions already: expected fewer", r.Limit)
	case wire.CodeKey:
		if cfg.HeartbeatKeyFile == "" {
			return "it requires a key: expected heartbeat_key_file"
		}
		return "it does not accept the first key of " + cfg.HeartbeatKeyFile + "; its own log says why"
	case wire.CodeStopping:
		return "it is stopping"
	}
	return fmt.Sprintf("code %d, which this version does not know", r.Code)
}
