// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sends gathers the small messages of one turn of a loop, and gives them to the kernel
// in one system call (io_submit(2)). Each of them wakes somebody, who may take the
// processor from us when the system call that woke him returns: with a call for each
// message those behind it wait until he is done. Eight sessions of pgbench -S on two
// processors: 30 us of conmgr's processor time a transaction instead of 35.
//
//	put -> lock kept, lane sending -> flush: io_submit, io_getevents -> lock released
//
// Sockets that do not block are written to before io_submit returns (sock_write_iter,
// net/socket.c); SIGPIPE, which is not to be had without, does nothing to a Go program
// that does not ask for it (os/signal). Where these system calls do not work, or
// fs.aio-max-nr leaves nothing, put takes nothing.
type sends struct {
	context uintptr // aio_context_t; 0 for none
	entries [maxSends]sendEntry
	blocks  [maxSends]ioControlBlock
	list    [maxSends]*ioControlBlock // what io_submit reads
	results [maxSends]ioEvent
	n       int
	pairs   []*pair // whose locks are kept
}

const (
	maxSends     = 32
	smallMessage = 4096 // bytes; a larger one is worth a system call
)

// sendEntry is a message of a lane.
type sendEntry struct {
	lane *lane
	len  int
	buf  [smallMessage]byte
}

// message is what is to be sent.
func (e *sendEntry) message() []byte { return e.buf[:e.len] }

// ioControlBlock is struct iocb of linux/aio_abi.h. What has no name here is 0; of that
// key and rw_flags change places with the byte order.
type ioControlBlock struct {
	data   uint64
	_      [2]uint32 // aio_key, aio_rw_flags
	opcode uint16
	_      int16 // aio_reqprio
	fd     uint32
	buf    uint64
	length uint64
	_      [3]uint64 // aio_offset, aio_reserved2, aio_flags and aio_resfd
}

// ioEvent is struct io_event; data is the control block's.
type ioEvent struct {
	data   uint64
	_      uint64 // obj
	result int64
	_      int64 // res2
}

const ioWrite = 1 // IOCB_CMD_PWRITE

// open makes the context; without one every message is sent by itself.
func (s *sends) open() {
	for i := range s.blocks {
		s.list[i] = &s.blocks[i]
	}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, maxSends, uintptr(unsafe.Pointer(&s.context)), 0); errno != 0 {
		s.context = 0
		return
	}
	if !s.works() {
		s.close()
	}
}

// works tries the other system calls with nothing: a seccomp filter may forbid one, and
// what was submitted could then not be concluded.
func (s *sends) works() bool {
	_, _, submit := unix.Syscall(unix.SYS_IO_SUBMIT, s.context, 0, uintptr(unsafe.Pointer(&s.list)))
	_, _, get := unix.Syscall6(unix.SYS_IO_GETEVENTS, s.context, 0, 0, uintptr(unsafe.Pointer(&s.results)), 0, 0)
	return submit == 0 && get == 0
}

func (s *sends) close() {
	if s.context != 0 {
		_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, s.context, 0, 0)
		s.context = 0
	}
}

// put takes a message of a lane whose pair is locked, and stays so until flush. It
// reports false when the message is to be sent otherwise.
func (s *sends) put(f *lane, message []byte) bool {
	if s.context == 0 || s.n == maxSends || len(message) == 0 || len(message) > smallMessage {
		return false
	}
	e := &s.entries[s.n]
	e.lane, e.len = f, copy(e.buf[:], message)
	s.blocks[s.n] = ioControlBlock{
		data: uint64(s.n), opcode: ioWrite, fd: uint32(f.dst),
		buf: uint64(uintptr(unsafe.Pointer(&e.buf))), length: uint64(e.len),
	}
	s.n++
	f.sending = true
	if !f.pair.kept {
		f.pair.kept = true
		s.pairs = append(s.pairs, f.pair)
	}
	return true
}

// full reports whether what both lanes of a pair say may not fit.
func (s *sends) full() bool { return s.n > maxSends-2 }

// flush sends what was put, and releases the pairs.
func (s *sends) flush() {
	if s.n == 0 {
		return
	}
	done := 0
	if s.n > 1 { // one is sent for less by itself
		done = s.submit()
	}
	s.alone(done)
	s.release()
}

// submit gives all to the kernel. It returns how many, of the first ones, were sent.
func (s *sends) submit() (done int) {
	n, _, errno := unix.RawSyscall(unix.SYS_IO_SUBMIT, s.context, uintptr(s.n), uintptr(unsafe.Pointer(&s.list)))
	if errno != 0 {
		return 0
	}
	for done < int(n) {
		left := n - uintptr(done)
		got, _, errno := unix.RawSyscall6(unix.SYS_IO_GETEVENTS, s.context, left, left, uintptr(unsafe.Pointer(&s.results)), 0, 0)
		if errno != 0 {
			continue // EINTR: open has seen that it works
		}
		for _, r := range s.results[:got] {
			var err error
			if r.result < 0 {
				err = unix.Errno(-r.result)
			}
			s.entries[r.data].conclude(int(max(r.result, 0)), err)
		}
		done += int(got)
	}
	return done
}

// alone sends those that the kernel did not take together: it had no memory for more.
func (s *sends) alone(from int) {
	for i := from; i < s.n; i++ {
		e := &s.entries[i]
		n, err := quickSend(e.lane.dst, e.message(), 0)
		e.conclude(n, err)
	}
	s.n = 0
}

// release unlocks the pairs, and ends those that a message could not be sent to.
func (s *sends) release() {
	for i, p := range s.pairs {
		p.kept, s.pairs[i] = false, nil
		if p.broken {
			p.fail()
		}
		p.mu.Unlock()
	}
	s.pairs = s.pairs[:0]
}

// conclude tells the lane what became of its message.
func (e *sendEntry) conclude(sent int, err error) {
	f := e.lane
	e.lane, f.sending = nil, false
	if err != nil && err != unix.EAGAIN {
		f.pair.broken = true
		return
	}
	f.total.Add(int64(sent))
	if sent < e.len {
		f.blocked = true
		f.hold(e.message()[sent:])
	}
}
