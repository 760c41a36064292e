// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"

	"github.com/jackc/pgx/v5/pgproto3"
)

// prepared is a parsed statement; empty means no command at all.
type prepared struct {
	cmd   command
	empty bool
}

// columns returns those of its answer, nil for none.
func (p *prepared) columns() []column {
	if p.empty {
		return nil
	}
	return columnsOf(p.cmd)
}

// portal is a statement with the formats of its answer, and what of the answer
// is not sent yet.
type portal struct {
	of      *prepared
	formats []int16
	started bool
	rows    []row
	tag     string
}

// extended answers a message of the extended protocol. An ERROR makes the
// caller skip until Sync; another error ends the session.
func (c *console) extended(ctx context.Context, kind byte, body []byte) error {
	switch kind {
	case 'P':
		return c.parse(body)
	case 'B':
		return c.bind(body)
	case 'D':
		return c.describe(body)
	case 'E':
		return c.run(ctx, body)
	case 'C':
		return c.closeObject(body)
	}
	return fatal("08P01", "unexpected message type %q: conmgr's console takes queries only", kind)
}

func (c *console) parse(body []byte) error {
	var m pgproto3.Parse
	if err := m.Decode(body); err != nil {
		return fatal("08P01", "invalid Parse message")
	}
	if err := checkName(m.Name); err != nil {
		return err
	}
	if c.prepared[m.Name] != nil && m.Name != "" {
		return failure("42P05", "prepared statement %q already exists", m.Name)
	}
	if len(c.prepared) >= maxPrepared {
		return failure("53400", "too many prepared statements: at most %d", maxPrepared)
	}
	commands, err := parseCommands(m.Query)
	if err != nil {
		return err
	}
	p := &prepared{empty: len(commands) == 0}
	switch {
	case len(commands) > 1:
		return failure("42601", "cannot insert multiple commands into a prepared statement")
	case len(commands) == 1:
		p.cmd = commands[0]
	}
	if c.prepared == nil {
		c.prepared = map[string]*prepared{}
	}
	c.prepared[m.Name] = p
	c.add(&pgproto3.ParseComplete{})
	return nil
}

func (c *console) bind(body []byte) error {
	var m pgproto3.Bind
	if err := m.Decode(body); err != nil {
		return fatal("08P01", "invalid Bind message")
	}
	p, err := c.statement(m.PreparedStatement)
	if err != nil {
		return err
	}
	if err := checkName(m.DestinationPortal); err != nil {
		return err
	}
	if len(m.Parameters) > 0 {
		return failure("08P01", "bind message supplies %d parameters, but conmgr's commands take none", len(m.Parameters))
	}
	if cols := p.columns(); cols != nil {
		if err := checkFormats(m.ResultFormatCodes, len(cols)); err != nil {
			return err
		}
	}
	if c.portals[m.DestinationPortal] != nil && m.DestinationPortal != "" {
		return failure("42P03", "cursor %q already exists", m.DestinationPortal)
	}
	if len(c.portals) >= maxPortals {
		return failure("53400", "too many portals: at most %d", maxPortals)
	}
	if c.portals == nil {
		c.portals = map[string]*portal{}
	}
	c.portals[m.DestinationPortal] = &portal{of: p, formats: m.ResultFormatCodes}
	c.add(&pgproto3.BindComplete{})
	return nil
}

func (c *console) describe(body []byte) error {
	var m pgproto3.Describe
	if err := m.Decode(body); err != nil {
		return fatal("08P01", "invalid Describe message")
	}
	var p *prepared
	var formats []int16
	var err error
	switch m.ObjectType {
	case 'S':
		if p, err = c.statement(m.Name); err == nil {
			c.add(&pgproto3.ParameterDescription{})
		}
	case 'P':
		var o *portal
		if o, err = c.portal(m.Name); err == nil {
			p, formats = o.of, o.formats
		}
	default:
		err = failure("08P01", "invalid DESCRIBE message subtype %d", m.ObjectType)
	}
	if err != nil {
		return err
	}
	if cols := p.columns(); cols != nil {
		c.pending = appendRowDescription(c.pending, cols, formats)
	} else {
		c.add(&pgproto3.NoData{})
	}
	return nil
}

// run executes a portal, or goes on with one that was suspended.
func (c *console) run(ctx context.Context, body []byte) error {
	var m pgproto3.Execute
	if err := m.Decode(body); err != nil {
		return fatal("08P01", "invalid Execute message")
	}
	o, err := c.portal(m.Portal)
	if err != nil {
		return err
	}
	if o.of.empty {
		c.add(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if !o.started {
		o.started = true
		if o.rows, o.tag, err = c.execute(ctx, o.of.cmd); err != nil {
			return err
		}
	}
	most := len(o.rows)
	if m.MaxRows > 0 && uint64(m.MaxRows) < uint64(most) {
		most = int(m.MaxRows)
	}
	for _, r := range o.rows[:most] {
		c.pending = appendRow(c.pending, r, o.formats)
		if err := c.flushWhenLarge(); err != nil {
			return err
		}
	}
	if o.rows = o.rows[most:]; len(o.rows) > 0 {
		c.add(&pgproto3.PortalSuspended{})
	} else {
		c.add(&pgproto3.CommandComplete{CommandTag: []byte(o.tag)})
	}
	return nil
}

// closeObject forgets a statement or a portal; none there is no error.
func (c *console) closeObject(body []byte) error {
	var m pgproto3.Close
	if err := m.Decode(body); err != nil {
		return fatal("08P01", "invalid Close message")
	}
	switch m.ObjectType {
	case 'S':
		delete(c.prepared, m.Name)
	case 'P':
		delete(c.portals, m.Name)
	default:
		return failure("08P01", "invalid CLOSE message subtype %d", m.ObjectType)
	}
	c.add(&pgproto3.CloseComplete{})
	return nil
}

// closePortals ends all portals, as the end of a transaction does.
func (c *console) closePortals() {
	if c.txn == txnIdle {
		c.portals = nil
	}
}

func (c *console) statement(name string) (*prepared, error) {
	if p := c.prepared[name]; p != nil {
		return p, nil
	}
	return nil, failure("26000", "prepared statement %q does not exist", name)
}

func (c *console) portal(name string) (*portal, error) {
	if o := c.portals[name]; o != nil {
		return o, nil
	}
	return nil, failure("34000", "portal %q does not exist", name)
}

func checkName(name string) error {
	if len(name) > maxName {
		return failure("42622", "identifier too long: %d bytes, at most %d", len(name), maxName)
	}
	return nil
}
