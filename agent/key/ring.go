// SPDX-License-Identifier: Apache-2.0

package key

import (
	"errors"
	"net/netip"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

// Errors of [Ring.OpenHello], for the watchdog's log. What the stranger is told is
// less: see the package comment.
var (
	ErrMissing = errors.New("the conmgr uses no key: expected one that is in the key file")
	ErrOwnNone = errors.New("the conmgr uses a key, and no key file is configured here")
	ErrUnknown = errors.New("the conmgr's key id is not in the key file")
	ErrSecret  = errors.New("the conmgr's HELLO was not made with the secret that its key id has in the key file")
	ErrAddress = errors.New("the key may not be used from the conmgr's address")
)

// Ring is the keys of one key file. It is not changed after [Parse] and may be
// used concurrently; a reload makes a new one. A nil Ring means that no key file
// is configured.
type Ring struct{ keys []*Key }

// First returns the key that a conmgr uses: the first one of its file. It returns
// nil on a nil Ring.
func (r *Ring) First() *Key {
	if r == nil {
		return nil
	}
	return r.keys[0]
}

// Keys returns the keys in the order of the file.
func (r *Ring) Keys() []*Key {
	if r == nil {
		return nil
	}
	return append([]*Key(nil), r.keys...)
}

// Find returns the key of that id, ErrUnknown when there is none, and ErrAddress
// when a client at that address may not use it.
func (r *Ring) Find(id wire.ID, client netip.Addr) (*Key, error) {
	k := r.get(id)
	switch {
	case k == nil:
		return nil, ErrUnknown
	case !k.Allows(client):
		return nil, ErrAddress
	}
	return k, nil
}

func (r *Ring) get(id wire.ID) *Key {
	if r == nil {
		return nil
	}
	for _, k := range r.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

// OpenHello decides whether the conmgr at client may open a session with an
// encoded HELLO, of which h is the parsed body. Without an error the session uses
// the key that is returned, or none when both sides have none. With ErrAddress the
// key is returned too, since the conmgr has proven to hold it: the REFUSE is sealed
// with it. Every other error returns no key.
func (r *Ring) OpenHello(frame []byte, h *wire.Hello, client netip.Addr) (*Key, error) {
	keyed := typeOf(frame) == wire.TypeHello && (frame[wire.OffsetAuth] != wire.AuthNone || h.Key != wire.ID{})
	switch {
	case r == nil && keyed:
		return nil, ErrOwnNone
	case r == nil:
		return nil, nil
	case !keyed:
		return nil, ErrMissing
	}
	k := r.get(h.Key)
	switch {
	case k == nil:
		return nil, ErrUnknown
	case !k.OpenHello(frame):
		return nil, ErrSecret
	case !k.Allows(client):
		return k, ErrAddress
	}
	return k, nil
}

// Renew returns the key of r that has the id and the secret of k, nil when there
// is none: the session that uses k must end then. It asks nothing about addresses,
// which may have changed; see [Key.Allows]. r and k may be nil.
func (r *Ring) Renew(k *Key) *Key {
	if k == nil {
		return nil
	}
	if now := r.get(k.id); now != nil && now.same(k) {
		return now
	}
	return nil
}

// Same reports whether both rings have the key of that id with the same secret.
func (r *Ring) Same(other *Ring, id wire.ID) bool {
	return r.Renew(other.get(id)) != nil
}
