// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// The right is proven without anybody else's socket, and its lack as well: it is
// CAP_NET_ADMIN and no other.
func TestProve(t *testing.T) {
	lab := agenttest.MustLab(t, "client", "db")
	client, db := lab.Host("client"), lab.Host("db")
	pg := mustListen(t, db, "tcp4", at(db.Addr4, 5432))
	p := pg.mustConnect(t, client, from(client.Addr4, 0), at(db.Addr4, 5432))
	prove := func(before func() error) (proven error) {
		if err := db.Do(func() error {
			if err := before(); err != nil {
				return err
			}
			c, err := Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			proven = c.Prove(t.Context())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return proven
	}
	if err := prove(agenttest.GuardHostNamespace); err != nil {
		t.Errorf("as root: %v", err)
	}
	right := agenttest.CapabilitySet(unix.CAP_NET_ADMIN)
	if err := prove(right.KeepOnly); err != nil {
		t.Errorf("with CAP_NET_ADMIN alone: %v", err)
	}
	for _, rest := range []agenttest.Capabilities{0, agenttest.AllCapabilities &^ right} {
		if err := prove(rest.KeepOnly); !errors.Is(err, ErrNotPermitted) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("without CAP_NET_ADMIN, with %x: %v, want ErrNotPermitted", rest, err)
		}
	}
	p.mustTalk(t)
}

// A kernel that does not show the socket is neither able nor unable.
func TestProveFindsNothing(t *testing.T) {
	k := &script{}
	err := k.conn(t).Prove(t.Context())
	if err == nil || errors.Is(err, ErrNotPermitted) || errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "0 sockets") {
		t.Errorf("error %v, want that there is no socket", err)
	}
	if len(k.destroys()) > 0 {
		t.Error("something was destroyed")
	}
}
