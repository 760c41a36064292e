// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// faultChannel is where applications hear of the loss of their instance.
const faultChannel = "conmgr_fault"

// execute runs one command and returns its rows and its tag.
func (c *console) execute(ctx context.Context, cmd command) ([]row, string, error) {
	if c.txn == txnFailed && cmd.verb != verbCommit && cmd.verb != verbRollback {
		return nil, "", failure("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	switch cmd.verb {
	case verbShow:
		rows, err := c.show(cmd.name)
		return rows, cmd.tag, err
	case verbTarget:
		rows, err := c.bindTo(ctx, cmd.target, cmd.only)
		return rows, cmd.tag, err
	case verbShutdown:
		return nil, cmd.tag, c.shutdown(cmd.mode)
	case verbSetting:
		value := settings[cmd.name].value
		if cmd.name == "application_name" {
			value = c.applicationName
		}
		return []row{{value}}, cmd.tag, nil
	case verbFunction:
		return []row{{functions[cmd.name].value}}, cmd.tag, nil
	case verbDeallocate:
		return nil, cmd.tag, c.deallocate(cmd.name)
	case verbDiscard:
		c.prepared, c.portals = nil, nil
		return nil, cmd.tag, nil
	}
	return nil, c.transaction(cmd), nil
}

// transaction keeps the status that drivers expect; there is nothing to
// commit. The COMMIT of a failed transaction is answered with ROLLBACK.
func (c *console) transaction(cmd command) (tag string) {
	tag = cmd.tag
	switch cmd.verb {
	case verbBegin:
		c.txn = txnOpen
	case verbCommit, verbRollback:
		if c.txn == txnFailed {
			tag = "ROLLBACK"
		}
		c.txn = txnIdle
		c.closePortals()
	}
	return tag
}

// deallocate forgets a prepared statement, all of them without a name.
func (c *console) deallocate(name string) error {
	if name == "" {
		c.prepared = nil
		return nil
	}
	if _, err := c.statement(name); err != nil {
		return err
	}
	delete(c.prepared, name)
	return nil
}

// shutdown passes a wish of cm_ctl on.
func (c *console) shutdown(mode ShutdownMode) error {
	if c.app.kind != kindControl {
		return failure("42501", "SHUTDOWN is taken on conmgr.sock only").withHint("Use cm_ctl stop.")
	}
	if err := c.server.opts.Shutdown(mode); err != nil {
		return failure("55000", "%s", err)
	}
	return nil
}

// bindTo answers TARGET: every instance that has the attribute, best first, or
// only the one that was named, and binds this session to the first.
func (c *console) bindTo(ctx context.Context, t Target, only *int) ([]row, error) {
	var rows []row
	err := c.server.choose(ctx, t, func(v *View, order []int) error {
		if order = onlyNumber(v, order, only); len(order) == 0 {
			return fmt.Errorf("instance %d does not serve target_session_attrs %s", *only, t)
		}
		if err := c.server.apps.bind(c.app, order[0], t, v.At, c.out); err != nil {
			return err
		}
		rows = rows[:0]
		for _, i := range order {
			n := &v.Instances[i]
			rows = append(rows, row{int64(n.Number), n.Host, n.address(), int64(n.Port), attributeOf(n)})
		}
		return nil
	})
	if err != nil {
		c.server.stats.targetsMissed.add(t)
		return nil, failure("58C01", "%s", err)
	}
	c.server.stats.targetsFound.add(t)
	c.server.apps.setState(c.app, "bound")
	return rows, nil
}

// onlyNumber drops every instance but the one with a number; nil drops none.
func onlyNumber(v *View, order []int, only *int) []int {
	if only == nil {
		return order
	}
	return slices.DeleteFunc(order, func(i int) bool { return v.Instances[i].Number != *only })
}

// address is the very address that the heartbeat uses, or the configured one
// while there is none.
func (n *InstanceView) address() string {
	if n.Addr.IsValid() {
		return n.Addr.String()
	}
	return n.HostAddr
}

// faultPayload is the JSON on faultChannel. No instance is conmgr itself.
type faultPayload struct {
	Instance  *int   `json:"instance"`
	Host      string `json:"host"`
	HostAddr  string `json:"hostaddr"`
	Port      uint16 `json:"port"`
	Reason    string `json:"reason"`
	SilenceMS int64  `json:"silence_ms"`
}

// faultNotice makes what a console application is told when its instance is
// lost.
func faultNotice(f Fault, n *InstanceView) []byte {
	message := fmt.Sprintf("instance %s is lost: %s", n.Name(), f.Reason)
	if f.Silence > 0 {
		message += fmt.Sprintf(", silent for %d ms", f.Silence.Milliseconds())
	}
	return notice(faultPayload{
		Instance: &n.Number, Host: n.Host, HostAddr: n.address(), Port: n.Port,
		Reason: f.Reason, SilenceMS: f.Silence.Milliseconds(),
	}, message)
}

// notice makes a notification with the error that follows it.
func notice(p faultPayload, message string) []byte {
	payload, err := json.Marshal(p)
	if err != nil {
		panic("conmgr: encode fault: " + err.Error())
	}
	b := appendMessage(nil, &pgproto3.NotificationResponse{Channel: faultChannel, Payload: string(payload)})
	return appendError(b, fatal("57P01", "%s", message))
}

// choose routes a target and lets use bind to the result. When an instance
// faulted between the two it waits a moment for the newer picture.
func (s *Server) choose(ctx context.Context, t Target, use func(v *View, order []int) error) error {
	const tries, pause = 50, 2 * time.Millisecond
	for try := 1; ; try++ {
		v := s.opts.Source.View()
		order, err := s.opts.Route(v, t)
		if err == nil && len(order) == 0 {
			err = fmt.Errorf("no instance is %s", t)
		}
		if err != nil {
			return err
		}
		if err = use(v, order); !errors.Is(err, errStaleView) || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// sees reports whether this session may see the row of another application.
func (c *console) sees(me owner, m *app) bool {
	switch {
	case c.app.kind == kindControl || m.id == c.app.id:
		return true
	case !me.known:
		return false
	case me.uid == 0 || me.uid == uint32(os.Getuid()):
		return true
	}
	return m.owner.known && m.owner.uid == me.uid
}

// statusOf does not call an instance up that was lost: up is what it was when it
// was heard last.
func statusOf(n *InstanceView) string {
	if n.Monitoring == Faulted && n.Instance.Status != wire.StatusDown {
		return wire.StatusUnknown.String()
	}
	return n.Instance.Status.String()
}

// attributeOf says primary, standby or unknown only while somebody knows.
func attributeOf(n *InstanceView) string {
	if n.Monitoring == Unknown {
		return wire.AttributeUnknown.String()
	}
	return n.Instance.Attribute.String()
}
