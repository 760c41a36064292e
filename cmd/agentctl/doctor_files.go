// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/pgconmgr/pgconmgr/agent/key/keyfile"
	"github.com/pgconmgr/pgconmgr/watchdog"
)

// readConfig reads pgwatchdog.conf before everything that may stand in it.
func (d *doctor) readConfig() {
	const check = "pgwatchdog.conf"
	path := d.options.config
	file, err := watchdog.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !d.options.configGiven:
		d.add(check, skipped, "there is no "+path+", and none is needed", "")
		return
	case errors.Is(err, fs.ErrNotExist):
		d.add(check, missing, err.Error(), "name the file by --config as pgwatchdog's command line does, or leave it out")
		return
	case errors.Is(err, fs.ErrPermission):
		d.add(check, missing, err.Error(), "run as root or as the user of pgwatchdog, or chmod a+r "+path)
		return
	case err != nil:
		d.add(check, missing, err.Error(), "correct "+path+": pgwatchdog does not start with it")
		return
	}
	d.file = file
	_, found := watchdog.Resolve(watchdog.Sources{File: file.Settings}, nil)
	if wrong := slices.Concat(found.Errors, found.Warnings); len(wrong) > 0 {
		d.add(check, missing, strings.Join(wrong, "; "), "correct "+path+", then reload pgwatchdog (SIGHUP)")
		return
	}
	d.add(check, works, fmt.Sprintf("%s: %s", path, plural(len(file.Own)+len(file.Settings), "setting")), "")
}

// own is a setting of pgwatchdog.conf that must be known before the instance is
// asked.
func (d *doctor) own(name string) string {
	if d.file == nil {
		return ""
	}
	return d.file.Own[name].Value
}

// checkFiles checks what needs the configuration.
func (d *doctor) checkFiles() {
	d.checkDescriptors()
	d.checkKeyFile()
}

func (d *doctor) checkDescriptors() {
	const check = "descriptors"
	sources := watchdog.Sources{}
	if d.file != nil {
		sources.File = d.file.Settings
	}
	whose := "without the instance's max_connections"
	if d.instance != nil {
		sources.Server, whose = d.instance.Settings, "as configured"
	}
	config, _ := watchdog.Resolve(sources, nil)
	limit, err := d.kernel.descriptors()
	if err != nil {
		d.add(check, missing, err.Error(), "let the hard limit be raised to: ulimit -Hn, LimitNOFILE= of systemd")
		return
	}
	need := config.Descriptors()
	detail := fmt.Sprintf("%d may be open here, %d are needed for %d heartbeat connections (%s)", limit, need, config.MaxHeartbeatConnections, whose)
	if limit < need {
		d.add(check, missing, detail, fmt.Sprintf("LimitNOFILE=%d in the unit of pgwatchdog (ulimit -n), or a smaller watchdog.max_heartbeat_connections", need))
		return
	}
	d.add(check, works, detail, "")
}

func (d *doctor) checkKeyFile() {
	const check = "key file"
	path := d.options.keyFile
	if path == "" {
		path = d.own("key_file")
	}
	if path == "" {
		d.add(check, skipped, "no --key-file, and no key_file in pgwatchdog.conf: heartbeats are not authenticated", "cm_ctl keygen makes one")
		return
	}
	uid, mode := ownerOf(path)
	ring, err := keyfile.LoadFor(path, uid)
	if err == nil {
		var ids []string
		for _, k := range ring.Keys() {
			ids = append(ids, k.String())
		}
		d.add(check, works, fmt.Sprintf("%s for the user %s: %s", plural(len(ids), "key"), make(userNames).name(uint32(uid)), strings.Join(ids, ", ")), "")
		return
	}
	advice := "correct " + path + ", or make another with cm_ctl keygen"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = "cm_ctl keygen -o " + path
	case errors.Is(err, fs.ErrPermission):
		advice = "run as root or as the user of pgwatchdog; the file must belong to it: chown pgwatchdog " + path
	case mode.Perm()&0o077 != 0:
		advice = "chmod 600 " + path + ", and new keys if others may have read it"
	}
	d.add(check, missing, err.Error(), advice)
}

// ownerOf is whose key file it is to be: the own one, but root asks for the user
// that it belongs to, who is to run pgwatchdog.
func ownerOf(path string) (uid int, mode fs.FileMode) {
	uid = os.Geteuid()
	info, err := os.Stat(path)
	if err != nil {
		return uid, 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && uid == 0 {
		uid = int(stat.Uid)
	}
	return uid, info.Mode()
}
