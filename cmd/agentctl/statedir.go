// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"strings"
)

// defaultStateDir is where pgwatchdog keeps its files unless it is told otherwise. Its
// unit for a cluster tells it otherwise: "-15-main" and the like is added.
const defaultStateDir = "/var/lib/pgconmgr/pgwatchdog"

// statesIn lists the state directories of a parent directory.
func statesIn(parent string) []string {
	found, _ := filepath.Glob(filepath.Join(parent, filepath.Base(defaultStateDir))) // never a bad pattern
	units, _ := filepath.Glob(filepath.Join(parent, filepath.Base(defaultStateDir)+"-*"))
	return append(found, units...)
}

// stateDir is the state directory of the pgwatchdog that is meant: the one that is
// named, else that of the only one that has run on this host.
func (e *env) stateDir(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	switch found := e.states(); len(found) {
	case 0:
		return defaultStateDir, nil
	case 1:
		return found[0], nil
	default:
		return "", errors.New("more than one pgwatchdog has run here: expected --state-dir=" + strings.Join(found, " or --state-dir="))
	}
}
