// SPDX-License-Identifier: Apache-2.0

package linkhint

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/mono/clock"
)

// sysClassNet is sysfs, which shows the devices of the namespace that it was
// mounted in.
const sysClassNet = "/sys/class/net"

// counterEvery is the pause between two looks at the counters. One look is 1 to 2
// µs for each device.
const counterEvery = 5 * time.Millisecond

const counterHint = "mount the sysfs of this network namespace on /sys"

var (
	errOtherNamespace = errors.New("sysfs shows the devices of another network namespace")
	errDeviceUnread   = errors.New("no device could be compared")
)

// class is an open /sys/class/net: it stays that of the namespace, whatever is
// mounted later.
type class int

// openClass opens sysfs and compares it with what the kernel says of this
// namespace. lo says nothing: it has the index 1 everywhere.
func openClass(path string, k *kernel) (class, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	dir := class(fd)
	for range interruptions { // a device may be renamed or removed between both looks
		if err = dir.compare(k); err == nil {
			return dir, nil
		}
	}
	_ = dir.close()
	return -1, fmt.Errorf("compare %s: %w", path, err)
}

func (c class) close() error { return unix.Close(int(c)) }

// compare looks for every device of the namespace.
func (c class) compare(k *kernel) error {
	devices, err := k.devices()
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := c.check(d); err != nil {
			return err
		}
	}
	if len(devices) == 0 {
		return errDeviceUnread
	}
	return nil
}

// check wants the directory of the device's name to be the device's.
func (c class) check(d device) error {
	index, err := c.read(d.name, "ifindex")
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: no %s", errOtherNamespace, d.name)
	}
	if err != nil {
		return err
	}
	if index != strconv.Itoa(d.index) {
		return fmt.Errorf("%w: %s is device %s, not %d", errOtherNamespace, d.name, index, d.index)
	}
	if d.address == "" {
		return nil
	}
	// Two namespaces of the same making have the same names and numbers.
	if address, err := c.read(d.name, "address"); err != nil {
		return err
	} else if address != d.address {
		return fmt.Errorf("%w: %s has another hardware address", errOtherNamespace, d.name)
	}
	return nil
}

// open opens a file of a device for reading.
func (c class) open(name, file string) (fd int, err error) {
	fd, err = unix.Openat(int(c), name+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s of %s: %w", file, name, err)
	}
	return fd, nil
}

// read returns a short file without the end of its line.
func (c class) read(name, file string) (string, error) {
	fd, err := c.open(name, file)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [128]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", file, name, err)
	}
	return strings.TrimSuffix(string(buf[:n]), "\n"), nil
}

// counted is one device whose counter is looked at.
type counted struct {
	fd   int
	last []byte // the file as it was, at the beginning of one of the buffers
	bufs [2][24]byte
	turn int // the buffer to read into
}

// look reports whether the counter is another one than before. A device that is
// gone says so once, and must be dropped.
func (c *counted) look() (news bool, err error) {
	buf := c.bufs[c.turn][:]
	n, err := pread(c.fd, buf)
	if err != nil {
		return true, err
	}
	if bytes.Equal(buf[:n], c.last) {
		return false, nil
	}
	c.last, c.turn = buf[:n], 1-c.turn
	return true, nil
}

// counter reads /sys/class/net/IF/carrier_changes: two atomic reads in the kernel,
// no lock. The file carrier beside it would take the lock of all network
// configuration. It looks on a goroutine of its own while there are devices, so that
// nobody is woken when there is no news:
//
//	still -> looking (keep)        close ends both
//	      <-
type counter struct {
	dir   class
	pulse *pulse
	news  chan struct{} // there is something to take
	looks sync.WaitGroup

	mu      sync.Mutex // guards the following
	files   map[int]*counted
	indexes []int // of files, in order
	beating bool
	started bool // the goroutine
	last    mono.Instant
	changed []int        // kept for its memory
	noted   []countedNow // not yet taken
}

// countedNow is a device that a look found changed, or gone.
type countedNow struct {
	index     int
	at, since mono.Instant // of this look and the one before
}

func newCounter(dir class) (*counter, error) {
	p, err := newPulse()
	if err != nil {
		return nil, errors.Join(err, dir.close())
	}
	return &counter{dir: dir, pulse: p, news: make(chan struct{}, 1), files: make(map[int]*counted)}, nil
}

// keep says which devices to look at from now on. It returns those that were
// opened: what happened before is not seen, so the caller looks at them.
// Those that could not be opened are in failed. An error says that nobody looks.
func (c *counter) keep(wanted []device) (opened []int, failed map[int]error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := make(map[int]bool)
	failed = make(map[int]error)
	for _, d := range wanted {
		keep[d.index] = true
		if c.files[d.index] != nil {
			continue
		}
		file, err := c.openCounted(d)
		if err != nil {
			failed[d.index] = err
			continue
		}
		c.files[d.index] = file
		opened = append(opened, d.index)
	}
	for index := range c.files {
		if !keep[index] {
			c.drop(index)
		}
	}
	c.indexes = slices.Sorted(maps.Keys(c.files))
	return opened, failed, c.beat(len(c.files) > 0)
}

// beat begins to look, or ends it. The lock is held.
func (c *counter) beat(on bool) error {
	if on == c.beating {
		return nil
	}
	var every time.Duration
	if on {
		every, c.last = counterEvery, clock.Now()
	}
	if err := c.pulse.set(every); err != nil {
		return err
	}
	c.beating = on
	if on && !c.started {
		c.started = true
		c.looks.Go(c.run)
	}
	return nil
}

// run looks until close.
func (c *counter) run() {
	for c.pulse.wait() == nil {
		if c.note() {
			select {
			case c.news <- struct{}{}:
			default: // it is taken together with what was noted before
			}
		}
	}
}

// note looks once and keeps what has changed.
func (c *counter) note() (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, now := c.last, clock.Now()
	c.last = now
	c.changed = c.look(c.changed[:0])
	for _, index := range c.changed {
		c.noted = append(c.noted, countedNow{index: index, at: now, since: before})
	}
	return len(c.changed) > 0
}

// take returns what was noted since it was called last.
func (c *counter) take() (noted []countedNow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	noted, c.noted = c.noted, nil
	return noted
}

// openCounted opens the file first: the name may belong to another device in the
// next moment, but not to this and another one within the check.
func (c *counter) openCounted(d device) (*counted, error) {
	fd, err := c.dir.open(d.name, "carrier_changes")
	if err != nil {
		return nil, err
	}
	file := &counted{fd: fd}
	_, err = file.look()
	if err == nil {
		err = c.dir.check(d)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return file, nil
}

func (c *counter) drop(index int) {
	if file := c.files[index]; file != nil {
		_ = unix.Close(file.fd)
		delete(c.files, index)
	}
}

// look appends the devices whose counter has changed, or that are gone. The lock is
// held.
func (c *counter) look(changed []int) []int {
	for _, index := range c.indexes {
		file := c.files[index]
		if file == nil {
			continue
		}
		news, err := file.look()
		if err != nil {
			c.drop(index)
		}
		if news {
			changed = append(changed, index)
		}
	}
	return changed
}

func (c *counter) close() error {
	err := c.pulse.close()
	c.looks.Wait()
	for index := range c.files {
		c.drop(index)
	}
	return errors.Join(err, c.dir.close())
}

// pread reads from the beginning of a file that does not wait for anything. Go's
// scheduler is not told of it: told, it wakes its own watchman (sysmon in the runtime's
// proc.go) for each look of a process that has nothing else to do.
func pread(fd int, buf []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
