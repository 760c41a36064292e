// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (list []netip.Addr) {
		for _, text := range texts {
			list = append(list, netip.MustParseAddr(text))
		}
		return list
	}
	for _, tt := range []struct {
		names []string
		want  []netip.Addr
	}{
		{nil, nil},
		{[]string{"localhost"}, addrs("127.0.0.1", "::1")},
		{[]string{"*", "10.0.0.1"}, addrs("0.0.0.0", "::", "10.0.0.1")},
		{[]string{"127.0.0.1", "::ffff:127.0.0.1", "localhost"}, addrs("127.0.0.1", "::1")},
	} {
		got, err := Resolve(t.Context(), tt.names)
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", tt.names, err, diff)
		}
	}
	if got, err := Resolve(t.Context(), []string{"localhost", "no such name"}); err == nil || !strings.Contains(err.Error(), `resolve "no such name"`) {
		t.Errorf("%v, %v", got, err)
	}
}

// One port for all addresses, what is absent left out, and what is taken told.
func TestTCP(t *testing.T) {
	t.Parallel()
	here, absent := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.77")
	list, port, err := TCP([]netip.Addr{here, absent}, 0, net.KeepAliveConfig{})
	if err != nil || len(list) != 1 || port == 0 || list[0].Addr().(*net.TCPAddr).Port != int(port) {
		t.Fatalf("%v, %d, %v", list, port, err)
	}
	defer Close(list)
	_, _, err = TCP([]netip.Addr{netip.MustParseAddr("127.0.0.2"), here}, port, net.KeepAliveConfig{})
	taken, ok := errors.AsType[*Error](err)
	if !ok || taken.At != netip.AddrPortFrom(here, port) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken port: %v", err)
	}
	if again, _, err := TCP([]netip.Addr{netip.MustParseAddr("127.0.0.2")}, port, net.KeepAliveConfig{}); err != nil {
		t.Errorf("what was bound before the error is still bound: %v", err)
	} else {
		Close(again)
	}
	if _, _, err := TCP([]netip.Addr{absent}, 0, net.KeepAliveConfig{}); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("nothing but what is absent: %v", err)
	}
}
