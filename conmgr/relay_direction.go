// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"io"
	"sync/atomic"
)

// direction is one of the two ways through a relay.
type direction struct {
	dst, src *hop
	unsent   *atomic.Int64 // bytes read from src that the kernel of dst has not taken
	total    *atomic.Int64 // bytes passed
	pipes    *pipes
}

// pass passes bytes until the end of the stream, io.EOF, or an error. g sees and
// may change them until it is done; nil sees none.
func (d *direction) pass(g *greeting) error {
	from, err := d.src.source()
	for err == nil && g != nil && !g.done {
		_, err = d.passOne(from, g.pass)
	}
	if g != nil && err == io.EOF {
		_, _ = d.dst.Write(g.rest())
	}
	plain := d.dst.secure == nil && d.src.secure == nil
	for err == nil {
		var full bool
		if full, err = d.passOne(from, nil); full && err == nil && plain {
			err = d.splice()
		}
	}
	return err
}

// passOne passes what one read brings, after change, which may be nil, has seen
// it. It reports whether that filled a buffer: there is more, probably.
func (d *direction) passOne(from source, change func([]byte) []byte) (full bool, err error) {
	c, err := from.receive()
	if err != nil {
		return false, err
	}
	defer c.free()
	b := c.bytes()
	if change != nil {
		if b = change(b); len(b) == 0 {
			return false, nil
		}
	}
	d.unsent.Store(int64(len(b)))
	if _, err := d.dst.Write(b); err != nil {
		return false, err
	}
	d.unsent.Store(0)
	d.total.Add(int64(len(b)))
	return c.n == bufferSize, nil
}

// splice passes what src has in its socket without copying it, as long as there is
// something and a pipe to be borrowed. In clear text only.
func (d *direction) splice() error {
	from, err := d.src.tcp.SyscallConn()
	if err != nil {
		return err
	}
	to, err := d.dst.tcp.SyscallConn()
	if err != nil {
		return err
	}
	p, ok := d.pipes.borrow()
	if !ok {
		return nil
	}
	for {
		n, err := p.fill(from)
		if n == 0 {
			d.pipes.giveBack(p)
			return err
		}
		d.unsent.Store(n)
		if err := p.empty(to, n); err != nil {
			d.pipes.discard(p) // bytes are in it
			return err
		}
		d.unsent.Store(0)
		d.total.Add(n)
	}
}
