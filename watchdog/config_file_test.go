// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pgwatchdog.conf")
	if _, err := ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("dsn = 'host=/run user=wd'\nlog_level = debug\nrun_dir = /run/other\nwatchdog.port = 27999\nwatchdog.max_hb_connections = 36\n")
	f, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Own) != 3 || f.Own["run_dir"].Value != "/run/other" || f.Own["dsn"].Value != "host=/run user=wd" || f.Own["log_level"].Value != "debug" {
		t.Errorf("own settings %+v", f.Own)
	}
	c, found := Resolve(Sources{File: f.Settings}, nil)
	if c.Port != 27999 || c.Descriptors() != 100 || len(found.Errors)+len(found.Warnings) != 0 {
		t.Errorf("port %d, %d descriptors, %+v", c.Port, c.Descriptors(), found)
	}
	write("watchdog.port = 27999\nwatchdog.prt = 1\n")
	if _, err := ReadFile(path); err == nil || !strings.Contains(err.Error(), path+":2: unknown parameter") {
		t.Errorf("misspelt: %v", err)
	}
}
