// SPDX-License-Identifier: Apache-2.0

package key

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/mono"
	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// cookieBucket is the grain of a cookie's age: it is taken for at least one and at
// most two of them.
const cookieBucket = 10 * time.Second

// Cookies makes and checks the cookies by which a stranger on UDP proves that it
// receives what is sent to its address. It keeps nothing about anybody, and may be
// used concurrently.
type Cookies struct{ secret raw }

// NewCookies makes Cookies of a secret that is random and fresh for each process
// (crypto/rand) and never leaves it.
func NewCookies(secret [32]byte) *Cookies { return &Cookies{raw(secret)} }

// Make returns the cookie for a HELLO with that nonce from remote.
func (c *Cookies) Make(remote netip.AddrPort, nonce wire.ID, now mono.Instant) [wire.CookieSize]byte {
	return c.at(remote, nonce, bucket(now))
}

// Check reports whether cookie was made for that nonce and remote, in the present
// bucket of 10 s or the one before. The first byte of a cookie is its bucket, so
// that one HMAC suffices; a HELLO without a cookie costs none.
func (c *Cookies) Check(cookie [wire.CookieSize]byte, remote netip.AddrPort, nonce wire.ID, now mono.Instant) bool {
	if cookie == ([wire.CookieSize]byte{}) {
		return false
	}
	b := bucket(now)
	age := uint64(byte(b) - cookie[0])
	if age > 1 || age > b {
		return false
	}
	want := c.at(remote, nonce, b-age)
	return subtle.ConstantTimeCompare(want[:], cookie[:]) == 1
}

// Format implements fmt.Formatter, so that no verb prints the secret.
func (c Cookies) Format(f fmt.State, _ rune) { fmt.Fprint(f, "cookies") }

func bucket(now mono.Instant) uint64 { return uint64(now) / uint64(cookieBucket) }

// at is the bucket's low byte and an HMAC of fields that all have a fixed size.
func (c *Cookies) at(remote netip.AddrPort, nonce wire.ID, bucket uint64) [wire.CookieSize]byte {
	const addr, port, zone, hello, when, size = 0, 16, 18, 34, 50, 58
	var b block
	m := b.message()
	ip := remote.Addr().As16()
	copy(m[addr:], ip[:])
	binary.BigEndian.PutUint16(m[port:], remote.Port())
	copy(m[zone:hello], remote.Addr().Zone())
	copy(m[hello:], nonce[:])
	binary.BigEndian.PutUint64(m[when:], bucket)
	sum := b.sum(&c.secret, size)
	sum[len(sum)-1] = sum[0] // 31 of the HMAC's bytes stay
	sum[0] = byte(bucket)
	return sum
}
