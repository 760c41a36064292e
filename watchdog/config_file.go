// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// ConfigFile is where pgwatchdog.conf stands unless another name is given.
const ConfigFile = "/etc/pgconmgr/pgwatchdog.conf"

// OwnNames returns what pgwatchdog.conf may set besides the parameters watchdog.*.
func OwnNames() []string { return slices.Clone(ownNames) }

// ownNames are what must be known before the instance is asked.
var ownNames = []string{"dsn", "state_dir", "key_file", "run_dir", "log_format", "log_level"}

// File is the content of pgwatchdog.conf.
type File struct {
	// Own are dsn, state_dir, key_file, run_dir, log_format and log_level, as far as
	// they are set.
	Own map[string]conf.Entry
	// Settings are the parameters watchdog.*, with unchecked values.
	Settings []conf.Entry
}

// ReadFile reads pgwatchdog.conf. An unknown name is an error, and so is a file that
// is not there (fs.ErrNotExist).
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, conf.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	entries, err := conf.Parse(path, text)
	if err != nil {
		return nil, err
	}
	out := &File{Own: make(map[string]conf.Entry)}
	for _, e := range entries {
		if slices.Contains(ownNames, e.Name) {
			out.Own[e.Name] = e
		} else {
			out.Settings = append(out.Settings, e)
		}
	}
	return out, CheckNames(out.Settings)
}
