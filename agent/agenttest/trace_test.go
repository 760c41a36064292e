// SPDX-License-Identifier: Apache-2.0

package agenttest

import (
	"net/netip"
	"testing"
)

// A trace has what one peer sent and was sent, to the byte, and nobody else's.
func TestTraceKeepsThePathsPackets(t *testing.T) {
	l := MustLab(t, "a", "b", "c")
	a, b, other := l.Host("a"), l.Host("b"), l.Host("c")
	server, err := b.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(b.Addr4, 7000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c := MustCapture(t, b, 7000)
	if err := c.Trace(a.Addr4); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*Host{other, a} {
		conn, err := h.Dial(t.Context(), "udp", server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("question of " + h.Name)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		_, from, err := server.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.WriteTo([]byte("answer"), from); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Traced()
	if err != nil || len(got) != 2 {
		t.Fatalf("traced %d packets, %v: expected 2", len(got), err)
	}
	q, r := got[0], got[1]
	if string(q.Payload) != "question of a" || q.Sent || q.Src.Addr() != a.Addr4 || q.Dst != netip.AddrPortFrom(b.Addr4, 7000) || q.At.IsZero() || q.From != a {
		t.Errorf("the question: %+v", q)
	}
	if string(r.Payload) != "answer" || !r.Sent || r.Src != q.Dst || r.Dst != q.Src || r.At.Before(q.At) || r.From != b {
		t.Errorf("the answer: %+v", r)
	}
}
