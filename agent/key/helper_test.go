// SPDX-License-Identifier: Apache-2.0

package key

import (
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// secretA is 00 01 02 ... 1f, secretB the same backwards.
const (
	secretA = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	secretB = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100"
)

var handshake = Handshake{
	Conmgr: wire.ID{0x11}, Watchdog: wire.ID{0x22}, HelloNonce: wire.ID{0x33}, WelcomeNonce: wire.ID{0x44},
	Session: 0x0102030405060708,
}

func mustParse(t testing.TB, text string) *Ring {
	t.Helper()
	r, err := Parse("keys", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRing(t testing.TB) *Ring {
	t.Helper()
	return mustParse(t, "app1 "+secretA+"\napp2 "+secretB+" 192.0.2.0/24 2001:db8::/64\n")
}

// mustPair returns both ends of one session.
func mustPair(t testing.TB) (conmgr, watchdog *Session) {
	t.Helper()
	k := mustRing(t).First()
	c, w := NewSession(Conmgr, k, handshake), NewSession(Watchdog, k, handshake)
	return &c, &w
}
