// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net"
	"slices"
	"sync"
)

// conns bounds how many connections there are: the oldest makes place for a new one.
// So whoever keeps many open cannot keep others out, and a scrape that takes
// milliseconds goes through.
type conns struct {
	most int

	mu   sync.Mutex // guards the following
	open []*conn    // oldest first
}

func newConns(most int) *conns { return &conns{most: most} }

// bound returns a listener whose connections count.
func (c *conns) bound(l net.Listener) net.Listener { return &bounded{l, c} }

type bounded struct {
	net.Listener
	conns *conns
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	accepted, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return b.conns.add(accepted), nil
}

// conn is one that counts until it is closed.
type conn struct {
	net.Conn
	conns *conns
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.conns.remove(c)
	return c.Conn.Close()
}

func (c *conns) add(accepted net.Conn) *conn {
	added := &conn{accepted, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.most {
		_ = c.open[0].Conn.Close() // whoever serves it finds out
		c.open = slices.Delete(c.open, 0, 1)
	}
	c.open = append(c.open, added)
	return added
}

func (c *conns) remove(gone *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(o *conn) bool { return o == gone })
}
