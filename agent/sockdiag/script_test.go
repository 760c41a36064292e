// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
)

// script plays the kernel without a kernel: it keeps the requests and answers
// with one message per read, as sock_diag does with acknowledgements.
type script struct {
	// dump answers a dump.
	dump func() []netlink.Message
	// destroy answers one kill; 0 is success.
	destroy func(n int, request []byte) syscall.Errno

	requests []netlink.Message
	sends    int // system calls
	queue    []netlink.Message
	kills    int
}

func (k *script) conn(t *testing.T) *Conn {
	t.Helper()
	c := newConn(&lane{nl: nltest.Dial(k.serve)})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (k *script) serve(requests []netlink.Message) ([]netlink.Message, error) {
	if requests == nil {
		if len(k.queue) == 0 {
			return nil, syscall.EAGAIN
		}
		m := k.queue[0]
		k.queue = k.queue[1:]
		return []netlink.Message{m}, nil
	}
	k.sends++
	for _, r := range requests {
		k.requests = append(k.requests, r)
		if r.Header.Type == typeDump {
			return k.answerDump(r), nil
		}
		k.answerDestroy(r)
	}
	return nil, nil
}

func (k *script) answerDump(r netlink.Message) []netlink.Message {
	var answers []netlink.Message
	if k.dump != nil {
		answers = k.dump()
	}
	answers = append(answers, netlink.Message{Header: netlink.Header{Type: netlink.Done}, Data: make([]byte, 4)})
	for i := range answers {
		h := &answers[i].Header
		h.Sequence, h.PID, h.Flags = r.Header.Sequence, r.Header.PID, h.Flags|netlink.Multi
		if h.Type == 0 {
			h.Type = typeDump
		}
	}
	return answers
}

// answerDestroy is netlink_rcv_skb: an answer if it fails or if it is asked for.
func (k *script) answerDestroy(r netlink.Message) {
	var errno syscall.Errno
	if k.destroy != nil {
		errno = k.destroy(k.kills, r.Data)
	}
	k.kills++
	if errno == 0 && r.Header.Flags&netlink.Acknowledge == 0 {
		return
	}
	k.queue = append(k.queue, errorMessage(r, errno))
}

func errorMessage(r netlink.Message, errno syscall.Errno) netlink.Message {
	data := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	return netlink.Message{
		Header: netlink.Header{Type: netlink.Error, Sequence: r.Header.Sequence, PID: r.Header.PID},
		Data:   append(data, make([]byte, 16)...),
	}
}

// destroys returns the kills that were asked for.
func (k *script) destroys() (kills []netlink.Message) {
	for _, r := range k.requests {
		if r.Header.Type == typeDestroy {
			kills = append(kills, r)
		}
	}
	return kills
}

// fromHex reads golden bytes; white space is ignored. They are those of a
// little-endian machine.
func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("golden bytes are little-endian")
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// replyOf encodes a socket as the kernel does.
func replyOf(s Socket, attributes ...byte) []byte {
	b := []byte{uint8(s.Family), uint8(s.State), uint8(s.Timer.Kind), s.Timer.Retries}
	b = append(b, destroyRequest(&s)[8:]...)
	for _, v := range []uint32{uint32(s.Timer.Expires.Milliseconds()), s.RecvQueue, s.SendQueue, s.UID, s.Inode} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return append(b, attributes...)
}

func replies(sockets ...Socket) (messages []netlink.Message) {
	for _, s := range sockets {
		messages = append(messages, netlink.Message{Data: replyOf(s)})
	}
	return messages
}

// client is an established connection of a PostgreSQL server at 10.99.0.2.
func client(addr string, cookie uint64) Socket {
	return Socket{
		Family: IPv4, State: Established, Cookie: cookie, Inode: 4711, UID: 26,
		Local:  netip.MustParseAddrPort("10.99.0.2:5432"),
		Remote: netip.MustParseAddrPort(addr),
	}
}

func mustPrefixes(texts ...string) (prefixes []netip.Prefix) {
	for _, text := range texts {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	return prefixes
}

func scripted(t *testing.T, serve nltest.Func) *netlink.Conn {
	t.Helper()
	c := nltest.Dial(serve)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// scriptedStale answers every dump with the number of the one before.
func scriptedStale(t *testing.T) *netlink.Conn {
	t.Helper()
	k := &script{dump: func() []netlink.Message { return replies(client("10.99.0.1:40000", 1)) }}
	return scripted(t, func(requests []netlink.Message) ([]netlink.Message, error) {
		answers, err := k.serve(requests)
		for i := range answers {
			answers[i].Header.Sequence--
		}
		return answers, err
	})
}
