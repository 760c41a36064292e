// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
)

const (
	// MaxPause is the longest pause of kills. For longer there is watchdog.dry_run,
	// which does not end by itself.
	MaxPause = 24 * time.Hour

	pauseFile     = "pause.json"
	pauseVersion  = 1
	pauseMaxBytes = 16 << 10
)

// Pause is a time in which nobody is killed, because an operator has asked for it. It
// is kept in the state directory, so that it survives a restart of the agent:
//
//	(none) --asked for--> paused --its end, or asked for--> (none)
//
// On the boot that it began in it ends by the boot-time clock, after a boot by the
// wall clock. It never lasts longer than was asked for, whatever the clocks do.
type Pause struct {
	Since, Until time.Time // in wall-clock time
	By           string    // who asked for it
	Reason       string    // what for; may be empty

	bootID   string
	end      mono.Instant // on that boot
	restored bool         // goes on after a restart of the agent
}

func newPause(bootID string, now mono.Instant, wall time.Time, d time.Duration, by, reason string) Pause {
	return Pause{
		Since: wall.Round(0), Until: wall.Round(0).Add(d), By: by, Reason: reason,
		bootID: bootID, end: now.Add(d),
	}
}

// left is how long the pause still lasts; nothing when it is over.
func (p *Pause) left(bootID string, now mono.Instant, wall time.Time) time.Duration {
	length := p.Until.Sub(p.Since)
	switch {
	case p.bootID == bootID:
		return min(p.end.Sub(now), length)
	case wall.Before(p.Since):
		return 0 // a clock that cannot be believed must not make it longer
	}
	return min(p.Until.Sub(wall), length)
}

type pauseJSON struct {
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
	BootID  string    `json:"boot_id"`
	EndNS   int64     `json:"until_boottime_ns"`
}

// savePause keeps a pause in the state directory; nil takes it back.
func savePause(dir string, p *Pause) error {
	path := filepath.Join(dir, pauseFile)
	if p == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("take the pause back: %w", err)
		}
		return nil
	}
	data, err := json.Marshal(pauseJSON{
		Version: pauseVersion, Since: p.Since.UTC(), Until: p.Until.UTC(), By: p.By, Reason: p.Reason,
		BootID: p.bootID, EndNS: int64(p.end),
	})
	if err == nil {
		err = replaceFile(path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the pause: %w", err)
	}
	return nil
}

// loadPause returns what savePause kept, nil without an error when there is none.
func loadPause(dir string) (*Pause, error) {
	path := filepath.Join(dir, pauseFile)
	data, err := readBounded(path, pauseMaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load the pause: %w", err)
	}
	var doc pauseJSON
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	if length := doc.Until.Sub(doc.Since); doc.Version != pauseVersion || length <= 0 || length > MaxPause {
		return nil, fmt.Errorf("load %s: version %d, %s long: expected version %d and at most %s", path, doc.Version, length, pauseVersion, MaxPause)
	}
	return &Pause{
		Since: doc.Since, Until: doc.Until, By: doc.By, Reason: doc.Reason,
		bootID: doc.BootID, end: mono.Instant(doc.EndNS), restored: true,
	}, nil
}
