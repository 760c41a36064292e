// SPDX-License-Identifier: Apache-2.0

package key

import (
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Labels say what a derived key is for. They are part of the protocol.
const (
	labelHello      = "HELLO"
	labelReply      = "REFUSE"
	labelToWatchdog = "conmgr to watchdog"
	labelToConmgr   = "watchdog to conmgr"
)

// Key is one line of a key file. It is not changed after [Parse] and may be used
// concurrently. It does not hold the secret, only what was derived from it, and
// prints as its id.
type Key struct {
	id      wire.ID
	clients []netip.Prefix // empty: any
	prk     raw
	hello   raw // authenticates HELLO
	reply   raw // authenticates REFUSE
}

func newKey(id wire.ID, secret []byte, clients []netip.Prefix) *Key {
	k := &Key{id: id, clients: clients, prk: extract(secret)}
	k.hello = expand(&k.prk, purpose(labelHello, id))
	k.reply = expand(&k.prk, purpose(labelReply, id))
	return k
}

// purpose begins the info of a derivation: the label behind its length, so that
// no two labels and ids can be read as each other, version and key id.
func purpose(label string, id wire.ID) []byte {
	info := append([]byte{byte(len(label))}, label...)
	info = append(info, wire.Version)
	return append(info, id[:]...)
}

// ID returns the key's id as HELLO and WELCOME carry it.
func (k *Key) ID() wire.ID { return k.id }

// String returns the id as it stands in the key file.
func (k Key) String() string { return Printable(k.id) }

// Format implements fmt.Formatter, so that no verb prints the key itself.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// Clients returns the networks that the key may be used from; none means all.
func (k *Key) Clients() []netip.Prefix { return slices.Clone(k.clients) }

// Allows reports whether a client at addr may use the key. addr may be
// IPv4-mapped and have a zone.
func (k *Key) Allows(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return len(k.clients) == 0 || slices.ContainsFunc(k.clients, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// SealHello authenticates an encoded HELLO in place. The HELLO must name this key
// (Hello.Key = k.ID()) and hold its cookie already. It panics on another frame.
func (k *Key) SealHello(frame []byte) {
	mustType(frame, wire.TypeHello)
	seal(&k.hello, 0, frame)
}

// OpenHello reports whether frame is a HELLO made with this key. See
// [Ring.OpenHello], which also looks at who sent it.
func (k *Key) OpenHello(frame []byte) bool {
	return typeOf(frame) == wire.TypeHello && opens(&k.hello, 0, frame)
}

// SealRefuse authenticates an encoded REFUSE in place. It panics on another frame.
func (k *Key) SealRefuse(frame []byte) {
	mustType(frame, wire.TypeRefuse)
	seal(&k.reply, 0, frame)
}

// OpenRefuse reports whether frame is a REFUSE made with this key.
func (k *Key) OpenRefuse(frame []byte) bool {
	return typeOf(frame) == wire.TypeRefuse && opens(&k.reply, 0, frame)
}

func mustType(frame []byte, t wire.Type) {
	if typeOf(frame) != t {
		panic("key: seal of a frame of another type than " + t.String())
	}
}

// same reports whether both are the same secret under the same id.
func (k *Key) same(o *Key) bool {
	return k.id == o.id && subtle.ConstantTimeCompare(k.prk[:], o.prk[:]) == 1
}

// Printable returns a key id as text. An id that no key file can hold, as a
// stranger may send it, becomes "?": it is not let into a log.
func Printable(id wire.ID) string {
	n := len(id)
	for n > 0 && id[n-1] == 0 {
		n--
	}
	if !validID(string(id[:n])) {
		return "?"
	}
	return string(id[:n])
}
