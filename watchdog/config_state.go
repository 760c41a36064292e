// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// settingsFile is the last good set of the instance's settings, in the state
// directory; settingsLimit bounds what of it is read.
const (
	settingsFile  = "settings.json"
	settingsLimit = 1 << 20
)

// Save keeps the settings in dir for a start while the instance is down: only
// those that the agent would take. The file is 0600 and replaced in one step; it
// survives a crash of the machine once Save has returned nil.
func (s *ServerSettings) Save(dir string) error {
	good := *s
	good.Warnings = nil
	good.Entries = slices.DeleteFunc(slices.Clone(s.Entries), func(e conf.Entry) bool {
		if proper, ok := aliases[e.Name]; ok {
			e.Name = proper
		}
		_, err := parameters.Read([]conf.Entry{e})
		return err != nil
	})
	data, err := json.MarshalIndent(&good, "", "\t")
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, settingsFile), append(data, '\n')); err != nil {
		return fmt.Errorf("keep the instance's settings: %w", err)
	}
	return nil
}

// LoadServerSettings returns what Save kept in dir, and nil without an error when
// nothing was kept yet.
func LoadServerSettings(dir string) (*ServerSettings, error) {
	path := filepath.Join(dir, settingsFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load the instance's settings: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, settingsLimit))
	if err != nil {
		return nil, fmt.Errorf("load the instance's settings: %w", err)
	}
	s := new(ServerSettings)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("load %s: expected the settings that an earlier run kept: %w", path, err)
	}
	return s, nil
}

// replaceFile writes data beside path, flushes it, and renames it over path. A
// crash leaves the old file or the new one.
func replaceFile(path string, data []byte) error {
	return replaceFileBy(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// replaceFileBy is replaceFile for what is too much to be held as a whole.
func replaceFileBy(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is left of it after the rename
	b := bufio.NewWriter(f)
	err = errors.Join(write(b), b.Flush(), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
