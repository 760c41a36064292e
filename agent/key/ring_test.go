// SPDX-License-Identifier: Apache-2.0

package key

import (
	"net/netip"
	"testing"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

func mustID(t testing.TB, s string) wire.ID {
	t.Helper()
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestFind(t *testing.T) {
	t.Parallel()
	r := mustParse(t, "any "+secretA+"\nsome "+secretB+" 192.0.2.0/25 192.0.2.200 2001:db8::7/64 fe80::/10\n")
	for _, tt := range []struct {
		id, client string
		want       error
	}{
		{"any", "203.0.113.9", nil},
		{"any", "::1", nil},
		{"some", "192.0.2.1", nil},
		{"some", "192.0.2.127", nil},
		{"some", "192.0.2.128", ErrAddress},
		{"some", "192.0.2.200", nil},
		{"some", "192.0.2.201", ErrAddress},
		{"some", "::ffff:192.0.2.1", nil},
		{"some", "::ffff:192.0.2.129", ErrAddress},
		{"some", "2001:db8::ffff", nil},
		{"some", "2001:db8:0:1::", ErrAddress},
		{"some", "fe80::1%eth0", nil},
		{"som", "192.0.2.1", ErrUnknown},
		{"Some", "192.0.2.1", ErrUnknown},
	} {
		k, err := r.Find(mustID(t, tt.id), netip.MustParseAddr(tt.client))
		if err != tt.want || (err == nil) != (k != nil) || k != nil && k.String() != tt.id {
			t.Errorf("%s from %s: %v, %v; want %v", tt.id, tt.client, k, err, tt.want)
		}
	}
	if _, err := r.Find(mustID(t, "some"), netip.Addr{}); err != ErrAddress {
		t.Errorf("no address: %v", err)
	}
	if _, err := r.Find(wire.ID{}, netip.MustParseAddr("192.0.2.1")); err != ErrUnknown {
		t.Errorf("no id: %v", err)
	}
}

func TestOpenHello(t *testing.T) {
	t.Parallel()
	inside, outside := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.7")
	r := mustRing(t)
	other := mustParse(t, "app2 "+secretA+"\nforeign "+secretA+"\n")
	hello := func(id wire.ID, k *Key) ([]byte, *wire.Hello) {
		f := &wire.Frame{Header: wire.Header{Type: wire.TypeHello, Seq: 1}, Hello: wire.Hello{Key: id}}
		b := wire.Append(nil, f)
		if k != nil {
			k.SealHello(b)
		}
		return b, &f.Hello
	}
	app2 := r.Keys()[1]
	for _, tt := range []struct {
		name   string
		ring   *Ring
		id     wire.ID
		sealed *Key
		client netip.Addr
		want   error
		key    *Key
	}{
		{"both without", nil, wire.ID{}, nil, inside, nil, nil},
		{"good", r, app2.ID(), app2, inside, nil, app2},
		{"good, any address", r, r.First().ID(), r.First(), outside, nil, r.First()},
		{"no key", r, wire.ID{}, nil, inside, ErrMissing, nil},
		{"no key here", nil, app2.ID(), app2, inside, ErrOwnNone, nil},
		{"names a key here, has no MAC", nil, app2.ID(), nil, inside, ErrOwnNone, nil},
		{"names a key, has no MAC", r, app2.ID(), nil, inside, ErrSecret, nil},
		{"has a MAC, names no key", r, wire.ID{}, app2, inside, ErrUnknown, nil},
		{"unknown id", r, mustID(t, "foreign"), other.Keys()[1], inside, ErrUnknown, nil},
		{"another secret", r, app2.ID(), other.First(), inside, ErrSecret, nil},
		{"another line's secret", r, app2.ID(), r.First(), inside, ErrSecret, nil},
		{"another line's secret, wrong address", r, app2.ID(), r.First(), outside, ErrSecret, nil},
		{"wrong address", r, app2.ID(), app2, outside, ErrAddress, app2},
	} {
		frame, h := hello(tt.id, tt.sealed)
		if k, err := tt.ring.OpenHello(frame, h, tt.client); err != tt.want || k != tt.key {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, k, err, tt.key, tt.want)
		}
	}
}

// A reload keeps the sessions whose key stayed, wherever it stands now.
func TestRenew(t *testing.T) {
	t.Parallel()
	old := mustRing(t)
	a, b := old.Keys()[0], old.Keys()[1]
	turned := mustParse(t, "new "+secretB+"\napp2 "+secretB+" 203.0.113.0/24\napp1 "+secretA+"\n")
	for _, k := range []*Key{a, b} {
		now := turned.Renew(k)
		if now == nil || now.ID() != k.ID() || now == k {
			t.Errorf("%v did not stay: %v", k, now)
		}
		if !turned.Same(old, k.ID()) || !old.Same(turned, k.ID()) {
			t.Errorf("%v is not the same in both", k)
		}
	}
	if turned.Renew(b).Allows(netip.MustParseAddr("192.0.2.1")) {
		t.Error("the new addresses do not hold")
	}
	if turned.First().String() != "new" {
		t.Errorf("first key %v", turned.First())
	}
	swapped := mustParse(t, "app1 "+secretB+"\n")
	for name, gone := range map[string]bool{
		"another secret": swapped.Renew(a) == nil && !swapped.Same(old, a.ID()),
		"removed":        swapped.Renew(b) == nil && !swapped.Same(old, b.ID()),
		"new":            !turned.Same(old, mustID(t, "new")),
		"no file now":    (*Ring)(nil).Renew(a) == nil && !(*Ring)(nil).Same(old, a.ID()),
		"no file before": !old.Same(nil, a.ID()) && old.Renew(nil) == nil,
	} {
		if !gone {
			t.Errorf("%s: the session goes on", name)
		}
	}
	if (*Ring)(nil).First() != nil || (*Ring)(nil).Keys() != nil {
		t.Error("a nil Ring has keys")
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for id, want := range map[wire.ID]string{
		{'a', 'b'}:                          "ab",
		{}:                                  "?",
		wire.ID([]byte("0123456789abcdef")): "0123456789abcdef",
		{'a', 0, 'b'}:                       "?",
		{'a', '\n'}:                         "?",
		{'a', 0x1b, '[', '2', 'J'}:          "?",
		{0xff, 0xfe}:                        "?",
	} {
		if got := Printable(id); got != want {
			t.Errorf("%q: %q, want %q", id[:], got, want)
		}
	}
}
