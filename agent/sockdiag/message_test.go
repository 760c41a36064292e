// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareAddrs = cmpopts.EquateComparable(netip.AddrPort{}, netip.Addr{}, netip.Prefix{})

func TestDumpRequestGolden(t *testing.T) {
	f, err := Filter{
		Peers: mustPrefixes("10.99.0.1/32"), LocalPorts: []PortRange{Port(5432)}, States: Killable, Info: true,
	}.normal()
	if err != nil {
		t.Fatal(err)
	}
	program, err := f.program()
	if err != nil {
		t.Fatal(err)
	}
	got := dumpRequest(f.States, f.Info, program)
	want := fromHex(t, `
		00 00 00 02
		0000 0000
		00000000000000000000000000000000 00000000000000000000000000000000
		00000000 0000000000000000
		02010000 00000000
		2400 0100
		02 08 2400 0000 3815
		03 08 1c00 0000 3815
		08 10 1400 02 20 0000 ffffffff 0a630001`)
	if !bytes.Equal(got, want) {
		t.Errorf("dump request\n got %x\nwant %x", got, want)
	}
	if got := dumpRequest(AllStates, false, nil); len(got) != dumpLen {
		t.Errorf("without a program the request has %d bytes, want %d", len(got), dumpLen)
	}
}

func TestDestroyRequestGolden(t *testing.T) {
	tests := []struct {
		name   string
		socket Socket
		want   string
	}{
		{"IPv4", Socket{
			Family: IPv4, Cookie: 0x1122334455667788,
			Local: netip.MustParseAddrPort("10.99.0.2:5432"), Remote: netip.MustParseAddrPort("10.99.0.1:40000"),
		}, `02 06 00 00 fe0f0000  1538 9c40
			0a630002 000000000000000000000000  0a630001 000000000000000000000000
			00000000 88776655 44332211`},
		{"mapped", Socket{
			Family: IPv6, Cookie: 1,
			Local: netip.MustParseAddrPort("10.99.0.2:5432"), Remote: netip.MustParseAddrPort("10.99.0.1:40000"),
		}, `0a 06 00 00 fe0f0000  1538 9c40
			00000000000000000000ffff 0a630002  00000000000000000000ffff 0a630001
			00000000 01000000 00000000`},
		{"link-local", Socket{
			Family: IPv6, Cookie: 1 << 32, Interface: 7,
			Local: netip.MustParseAddrPort("[fe80::2]:5432"), Remote: netip.MustParseAddrPort("[fe80::1]:40000"),
		}, `0a 06 00 00 fe0f0000  1538 9c40
			fe800000000000000000000000000002  fe800000000000000000000000000001
			07000000 00000000 01000000`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := destroyRequest(&tt.socket), fromHex(t, tt.want); !bytes.Equal(got, want) {
				t.Errorf("destroy request\n got %x\nwant %x", got, want)
			}
		})
	}
}

// goldenReply is an answer as this kernel's dumps have them: an IPv4 client of a
// dual-stack listener, its attributes in another order than ours.
const goldenReply = `
	0a 01 01 03  1538 9c40
	00000000000000000000ffff 0a630002  00000000000000000000ffff 0a630001
	00000000 88776655 44332211
	2c010000 05000000 0b000000 1a000000 67120000
	0500 0800 0000 0000
	9c00 0200
	01 00 04 02 00 07 77 00  40420f00 409c0000 a8050000 18020000
	03000000 00000000 01000000 02000000 00000000
	0a000000 00000000 14000000 1e000000
	dc050000 10fd0000 e8030000 f4010000 ffffff7f 0a000000 b4050000 03000000
	00000000 00fa0000 09000000
	ffffffffffffffff ffffffffffffffff 0001000000000000 0002000000000000
	05000000 06000000 00000000 ffffffff`

func TestParseSocketGolden(t *testing.T) {
	got, err := parseSocket(fromHex(t, goldenReply))
	if err != nil {
		t.Fatal(err)
	}
	want := Socket{
		Family: IPv6, State: Established, Cookie: 0x1122334455667788, Inode: 0x1267, UID: 26,
		Local: netip.MustParseAddrPort("10.99.0.2:5432"), Remote: netip.MustParseAddrPort("10.99.0.1:40000"),
		RecvQueue: 5, SendQueue: 11,
		Timer: Timer{Kind: TimerRetransmit, Expires: 300 * time.Millisecond, Retries: 3},
		Info: &Info{
			Retransmits: 4, Probes: 2, RTO: time.Second, Unacked: 3, Lost: 1, TotalRetrans: 9,
			RTT: time.Millisecond, RTTVar: 500 * time.Microsecond,
			LastDataSent: 10 * time.Millisecond, LastDataReceived: 20 * time.Millisecond, LastAckReceived: 30 * time.Millisecond,
			BytesAcked: 256, BytesReceived: 512,
		},
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Errorf("socket (-want +got):\n%s", diff)
	}
	if got.Info.LastReceived() != 20*time.Millisecond {
		t.Errorf("last sign of life %v ago, want 20ms", got.Info.LastReceived())
	}
}

// What is found is named to the kernel in the kernel's own bytes.
func TestIdentityComesBackUnchanged(t *testing.T) {
	for _, s := range []Socket{
		client("10.99.0.1:40000", 7),
		{Family: IPv6, Local: netip.MustParseAddrPort("[fe80::2]:1"), Remote: netip.MustParseAddrPort("[fe80::1]:2"), Interface: 3, Cookie: 1<<63 + 1},
		{Family: IPv6, Local: netip.MustParseAddrPort("10.0.0.1:1"), Remote: netip.MustParseAddrPort("10.0.0.2:2"), Cookie: 9},
	} {
		reply := replyOf(s)
		parsed, err := parseSocket(reply)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := destroyRequest(&parsed)[8:], reply[4:4+sockIDLen]; !bytes.Equal(got, want) {
			t.Errorf("%v: identity\n got %x\nwant %x", s, got, want)
		}
	}
}

func TestParseSocketRefuses(t *testing.T) {
	whole := replyOf(client("10.99.0.1:40000", 7))
	tests := []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"one byte less", whole[:len(whole)-1]},
		{"other family", append([]byte{1}, whole[1:]...)},
		{"attribute of length 0", append(bytes.Clone(whole), 0, 0, 2, 0)},
		{"attribute beyond the end", append(bytes.Clone(whole), 9, 0, 2, 0, 1, 2, 3, 4)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s, err := parseSocket(tt.b); !errors.Is(err, ErrMalformed) {
				t.Errorf("parsed to %v, error %v; want ErrMalformed", s, err)
			}
		})
	}
}

func TestParseInfoOfOlderKernels(t *testing.T) {
	b := make([]byte, 280)
	for i := range b {
		b[i] = 1
	}
	const word = 0x01010101
	tests := []struct {
		length        int
		known         bool
		bytesReceived uint64
		minRTT        time.Duration
	}{
		{minInfo - 1, false, 0, 0},
		{minInfo, true, 0, 0},
		{135, true, 0, 0},
		{136, true, word<<32 | word, 0},
		{151, true, word<<32 | word, 0},
		{152, true, word<<32 | word, word * time.Microsecond},
		{280, true, word<<32 | word, word * time.Microsecond},
	}
	for _, tt := range tests {
		info := parseInfo(b[:tt.length])
		if !tt.known {
			if info != nil {
				t.Errorf("%d bytes: %+v, want none", tt.length, info)
			}
			continue
		}
		if info.BytesReceived != tt.bytesReceived || info.MinRTT != tt.minRTT || info.TotalRetrans != word {
			t.Errorf("%d bytes: received %d, min rtt %v, retransmitted %d; want %d, %v, %d",
				tt.length, info.BytesReceived, info.MinRTT, info.TotalRetrans, tt.bytesReceived, tt.minRTT, word)
		}
	}
}

// FuzzParseSocket: no answer makes the parser panic, and what it makes of one
// names the same socket when it is sent back.
func FuzzParseSocket(f *testing.F) {
	f.Add(fromHex(f, goldenReply))
	f.Add(replyOf(client("10.99.0.1:40000", 7), 5, 0, 8, 0, 1, 0, 0, 0))
	f.Add(replyOf(Socket{Family: IPv6, Local: netip.MustParseAddrPort("[fe80::2]:1"), Remote: netip.MustParseAddrPort("[::]:0"), State: Listen}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSocket(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v: want ErrMalformed", err)
			}
			return
		}
		_ = s.String()
		again := destroyRequest(&s)[8:]
		id := bytes.Clone(b[4 : 4+sockIDLen])
		if s.Family == IPv4 { // only the first 4 bytes of an address count
			clear(id[8:20])
			clear(id[24:36])
		}
		if !bytes.Equal(again, id) {
			t.Fatalf("identity %x became %x", id, again)
		}
		if refusal(&s) == nil && (!Killable.Has(s.State) || s.Cookie == 0 || binary.NativeEndian.Uint64(id[40:]) == noCookie) {
			t.Fatalf("%v would be destroyed", s)
		}
	})
}
