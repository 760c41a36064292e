// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps the names of network namespaces.
const netnsDir = "/run/netns"

// space is a named network namespace with a thread that lives in it, and in a
// mount namespace whose /sys shows the namespace's own devices (sysfs shows
// those of the namespace it was mounted in).
//
// Children are started by that one thread because PR_SET_PDEATHSIG means the
// death of the thread that forked, not of its process.
type space struct {
	name  string
	calls chan func()
	quit  chan struct{}
	done  chan struct{}
	net   *os.File // the network namespace
	mount *os.File // the thread's mount namespace
}

// openSpace starts the thread of the namespace that ip-netns(8) knows as name.
func openSpace(name string) (*space, error) {
	s := &space{name: name, calls: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error)
	go onOwnThread(func() { s.serve(ready) })
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("enter namespace %s: %w", name, err)
	}
	return s, nil
}

// serve runs calls on its own thread until close. The thread ends
// then: one in the wrong namespace must not go back to the pool.
func (s *space) serve(ready chan<- error) {
	defer close(s.done)
	if err := s.enterFirst(); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for {
		select {
		case call := <-s.calls:
			call()
		case <-s.quit:
			return
		}
	}
}

// onOwnThread runs f on a thread that ends with it. It is never the process's
// main thread, which cannot end and which /proc/self describes.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f() // still locked when the goroutine returns: the thread ends
		return
	}
	// This goroutine keeps the main thread busy until f is done elsewhere.
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go onOtherThread(f, done)
	<-done
}

func onOtherThread(f func(), done chan<- struct{}) {
	defer close(done)
	onOwnThread(f)
}

// enterFirst joins the network namespace and makes the mount namespace.
func (s *space) enterFirst() error {
	f, err := os.Open(netnsDir + "/" + s.name)
	if err != nil {
		return err
	}
	s.net = f
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := remountSys(); err != nil {
		return err
	}
	s.mount, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
	return err
}

// remountSys puts the sysfs of the thread's network namespace on /sys and
// carries over what is mounted below it (cgroups, bpf, tracing).
func remountSys() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	below, err := mountsBelow("/sys")
	if err != nil {
		return err
	}
	fresh, err := os.MkdirTemp("", "pgconmgr-sys-")
	if err != nil {
		return err
	}
	defer os.Remove(fresh)
	if err := unix.Mount("sysfs", fresh, "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	for _, dir := range below {
		// A directory that the new sysfs does not have is not missed.
		_ = unix.Mount(dir, fresh+strings.TrimPrefix(dir, "/sys"), "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err := unix.Mount(fresh, "/sys", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move sysfs: %w", err)
	}
	return nil
}

// mountsBelow returns the mount points under dir that are not under another
// one of them.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		if !underAny(fields[4], found) {
			found = append(found, fields[4])
		}
	}
	return found, nil
}

func underAny(path string, dirs []string) bool {
	for _, dir := range dirs {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return true
		}
	}
	return false
}

var errSpaceClosed = errors.New("the lab is closed")

// call runs f on the namespace's own thread; f must be short.
func (s *space) call(f func() error) (err error) {
	finished := make(chan struct{})
	run := func() {
		defer close(finished)
		err = f()
	}
	select {
	case s.calls <- run:
		<-finished
		return err
	case <-s.done:
		return errSpaceClosed
	}
}

// do runs f on a new thread in the namespaces; f may block as long as it likes.
func (s *space) do(f func() error) error {
	result := make(chan error, 1)
	go onOwnThread(func() { s.enterAndRun(f, result) })
	return <-result
}

// errGoexit is reported when the function in Do calls t.FailNow or the like.
var errGoexit = errors.New("the function in Do ended its goroutine")

func (s *space) enterAndRun(f func() error, result chan<- error) {
	err := errGoexit
	defer func() { result <- err }()
	if entered := s.enter(); entered != nil {
		err = entered
		return
	}
	err = f()
}

// enter moves the calling thread, for good.
func (s *space) enter() error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare fs: %w", err)
	}
	if err := unix.Setns(int(s.mount.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns mount: %w", err)
	}
	if err := unix.Setns(int(s.net.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns net: %w", err)
	}
	return unix.Chdir(dir) // setns(CLONE_NEWNS) went to the root
}

// close ends the thread. Children that it started are killed by the kernel.
func (s *space) close() {
	close(s.quit)
	<-s.done
	_ = s.net.Close()
	_ = s.mount.Close()
}

// addNetns makes named network namespaces as ip-netns(8) does.
func addNetns(ctx context.Context, names []string) error {
	_, err := runTool(ctx, "netns add "+strings.Join(names, "\nnetns add ")+"\n", "ip", "-batch", "-")
	return err
}

// deleteNetns removes the names that there are, after an error too; a namespace goes
// with its last user.
func deleteNetns(ctx context.Context, names []string) error {
	var lines strings.Builder
	for _, name := range names {
		if _, err := os.Stat(netnsDir + "/" + name); !errors.Is(err, os.ErrNotExist) {
			lines.WriteString("netns delete " + name + "\n")
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	_, err := runTool(ctx, lines.String(), "ip", "-force", "-batch", "-")
	return err
}
