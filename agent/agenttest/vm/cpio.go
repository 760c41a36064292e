// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"fmt"
	"io"
)

// cpio writes an archive of the format that the kernel unpacks as its first root
// directory: "newc" of cpio(5), uncompressed because emulation unpacks slowly.
type cpio struct {
	w     io.Writer
	inode int
	size  int64
	err   error
}

// entry is one file, directory or symbolic link.
type entry struct {
	name     string // without a slash in front
	mode     uint32 // as in struct stat
	uid, gid uint32
	size     int64
	body     io.Reader // size bytes; nil when size is 0
}

// add writes an entry. Directories come before what is in them.
func (c *cpio) add(e entry) error {
	c.inode++
	c.printf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, e.mode, e.uid, e.gid, 1, 0, e.size, 0, 0, 0, 0, len(e.name)+1, 0, e.name)
	c.pad()
	if e.body != nil && c.err == nil {
		var n int64
		n, c.err = io.Copy(c.w, io.LimitReader(e.body, e.size))
		c.size += n
		if c.err == nil && n != e.size {
			c.err = fmt.Errorf("%s: %d of %d bytes", e.name, n, e.size)
		}
	}
	c.pad()
	return c.err
}

// close ends the archive.
func (c *cpio) close() error {
	c.inode = -1
	return c.add(entry{name: "TRAILER!!!"})
}

func (c *cpio) printf(format string, args ...any) {
	if c.err != nil {
		return
	}
	var n int
	n, c.err = fmt.Fprintf(c.w, format, args...)
	c.size += int64(n)
}

// pad fills up to a multiple of four bytes.
func (c *cpio) pad() {
	const zeros = "\x00\x00\x00"
	c.printf("%s", zeros[:-c.size&3])
}
