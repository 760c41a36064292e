// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"io"
	"sync/atomic"
)

// direction is one of the two ways through a relay that two goroutines pass.
type direction struct {
	dst, src *hop
	unsent   *atomic.Int64 // bytes read from src that the kernel of dst has not taken
	total    *atomic.Int64 // bytes passed
}

// pass passes bytes until the end of the stream, io.EOF, or an error. g sees and
// may change them until it is done; nil sees none.
func (d *direction) pass(g *greeting) error {
	from, err := d.src.source()
	for err == nil && g != nil && !g.done {
		err = d.passOne(from, g.pass)
	}
	if g != nil && err == io.EOF {
		_, _ = d.dst.Write(g.rest())
	}
	for err == nil {
		err = d.passOne(from, nil)
	}
	return err
}

// passOne passes what one read brings, after change, which may be nil, has seen it.
func (d *direction) passOne(from source, change func([]byte) []byte) error {
	c, err := from.receive()
	if err != nil {
		return err
	}
	defer c.free()
	b := c.bytes()
	if change != nil {
		if b = change(b); len(b) == 0 {
			return nil
		}
	}
	d.unsent.Store(int64(len(b)))
	if _, err := d.dst.Write(b); err != nil {
		return err
	}
	d.unsent.Store(0)
	d.total.Add(int64(len(b)))
	return nil
}
