// SPDX-License-Identifier: Apache-2.0

package agenttest

import "golang.org/x/sys/unix"

// ScratchDir returns the directory for the files of labs and instances. In memory
// where there is room and programs may be run from it: a data directory has a
// thousand files, and to make and remove them took half of the processor time of
// all end-to-end tests on ext4, which looks for an inode that was not deleted just
// now (recently_deleted in fs/ext4/ialloc.c). Not os.TempDir: the path of a Unix
// socket has at most 107 bytes.
func ScratchDir() string {
	const memory, room = "/dev/shm", 4 << 30
	var st unix.Statfs_t
	err := unix.Statfs(memory, &st)
	if err != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NOEXEC != 0 || st.Bavail*uint64(st.Bsize) < room {
		return "/tmp"
	}
	return memory
}
