// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one that has a socket open.
type process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
}

// owners is who has which sockets open, as far as /proc tells this user.
type owners struct {
	byInode map[uint32][]process
	// hidden: some processes did not show what they have open.
	hidden bool
}

// findOwners looks through the descriptors of all processes. Those of other users
// need root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
func findOwners(proc string, wanted map[uint32]bool) owners {
	found := owners{byInode: make(map[uint32][]process)}
	if len(wanted) == 0 {
		return found
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		found.hidden = true
		return found
	}
	// Mounted with hidepid=2, /proc has no entries of other users' processes.
	if _, err := os.Stat(filepath.Join(proc, "1")); err != nil {
		found.hidden = true
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			found.addProcess(filepath.Join(proc, entry.Name()), pid, wanted)
		}
	}
	return found
}

func (o *owners) addProcess(dir string, pid int, wanted map[uint32]bool) {
	// One that ends meanwhile has nothing open.
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if errors.Is(err, fs.ErrPermission) {
		o.hidden = true
	}
	seen := make(map[uint32]bool)
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if errors.Is(err, fs.ErrPermission) {
			o.hidden = true
			return
		}
		inode, ok := socketInode(target)
		if !ok || !wanted[inode] || seen[inode] {
			continue
		}
		seen[inode] = true
		o.byInode[inode] = append(o.byInode[inode], process{pid, processName(dir)})
	}
}

// socketInode reads what a descriptor's link says: "socket:[4711]".
func socketInode(target string) (uint32, bool) {
	text, ok := strings.CutPrefix(target, "socket:[")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32)
	return uint32(n), err == nil
}

func processName(dir string) string {
	name, _ := os.ReadFile(filepath.Join(dir, "comm"))
	return strings.TrimSpace(string(name))
}

// userNames remembers the names of users.
type userNames map[uint32]string

// name is the user's name, or its number when it has none here.
func (n userNames) name(uid uint32) string {
	if name, ok := n[uid]; ok {
		return name
	}
	id := strconv.FormatUint(uint64(uid), 10)
	n[uid] = id
	if u, err := user.LookupId(id); err == nil {
		n[uid] = u.Username
	}
	return n[uid]
}
