// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
)

// LabKey is the key of [Host.KeyFile], which all hosts of a lab may share.
const LabKey = "lab 8f0c3a5d7e91b2466c1f0e9d8c7b6a5948372615f0e1d2c3b4a5968778695a4b\n"

// KeyFile returns the path of a key file on the host, the same key for every
// host, that only the given system user (empty: root) can read.
func (h *Host) KeyFile(owner string) (string, error) {
	name := "key-" + cmp.Or(owner, "root")
	path := filepath.Join(h.lab.Dir, h.Name, name, "heartbeat.key")
	_, err := h.Mkdir(owner, name)
	switch {
	case errors.Is(err, os.ErrExist):
		return path, nil
	case err != nil:
		return "", err
	}
	if err := os.WriteFile(path, []byte(LabKey), 0o600); err != nil {
		return "", err
	}
	if owner == "" {
		return path, nil
	}
	uid, gid, err := lookupUser(owner)
	if err != nil {
		return "", err
	}
	return path, os.Chown(path, int(uid), int(gid))
}
