// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/pgconmgr/pgconmgr/agent/wire"
)

const (
	publishVersion = 1
	// publishedEvents is how many events are published, and publishedBytes bounds
	// what they take: an event can name a thousand processes.
	publishedEvents = 200
	publishedBytes  = 1 << 20
)

// SessionRow is one armed heartbeat session as it is shown.
type SessionRow struct {
	Addr                  netip.Addr // IPv4-mapped addresses are unmapped, zones dropped
	Port                  uint16
	Interval, Timeout     time.Duration
	State                 wire.State
	UDP, Keyed, Protected bool
	Armed                 time.Time // zero while unknown
	Heard                 time.Time
	RTT                   time.Duration // zero while unknown
	Received, Lost        uint64        // frames of the conmgr
	Sent, SentLost        uint64        // frames to it
	Session               uint64
	Conmgr                wire.ID
}

// Append writes the row as a JSON object of ASCII alone, with the names that the
// SQL extension expects.
func (r *SessionRow) Append(b []byte) []byte {
	text := func(name, value string) { b = append(append(append(append(b, name...), '"'), value...), '"') }
	number := func(name string, value int64) { b = strconv.AppendInt(append(b, name...), value, 10) }
	truth := func(name string, value bool) { b = strconv.AppendBool(append(b, name...), value) }
	b = append(r.Addr.AppendTo(append(b, `{"addr":"`...)), '"')
	number(`,"port":`, int64(r.Port))
	number(`,"interval_ms":`, r.Interval.Milliseconds())
	number(`,"timeout_ms":`, r.Timeout.Milliseconds())
	text(`,"state":`, r.State.String())
	text(`,"transport":`, transportName(r.UDP))
	truth(`,"keyed":`, r.Keyed)
	truth(`,"protected":`, r.Protected)
	if !r.Armed.IsZero() {
		number(`,"armed_us":`, r.Armed.UnixMicro())
	}
	number(`,"heard_us":`, r.Heard.UnixMicro())
	if r.RTT > 0 {
		number(`,"rtt_us":`, r.RTT.Microseconds())
	}
	number(`,"received":`, int64(r.Received))
	number(`,"lost":`, int64(r.Lost))
	number(`,"sent":`, int64(r.Sent))
	number(`,"sent_lost":`, int64(r.SentLost))
	number(`,"session":`, int64(r.Session))
	b = append(hex.AppendEncode(append(b, `,"conmgr":"`...), r.Conmgr[:]), `"}`...)
	return b
}

func transportName(udp bool) string {
	if udp {
		return "udp"
	}
	return "tcp"
}

// writeHead begins a file: all but its list.
func writeHead(w io.Writer, of told, list string) error {
	_, err := fmt.Fprintf(w, `{"version":%d,"as_of_us":%d,"postmaster_start_us":%d,"kills":%q,%q:[`+"\n",
		publishVersion, time.Now().UnixMicro(), of.startUS, of.kills, list)
	return err
}

const publishTail = "\n]}\n"

func (p *publisher) writeSessions(ctx context.Context, w io.Writer, of told) (n int, err error) {
	if err := writeHead(w, of, "sessions"); err != nil {
		return 0, err
	}
	first := true
	n, err = p.sessions(ctx, func(rows []byte) error {
		if first {
			rows, first = rows[min(1, len(rows)):], false // the comma
		}
		_, err := w.Write(rows)
		return err
	})
	if err == nil {
		_, err = io.WriteString(w, publishTail)
	}
	return n, err
}

func writeEvents(w io.Writer, of told, events *EventStore) error {
	if err := writeHead(w, of, "events"); err != nil {
		return err
	}
	written := 0
	for i, e := range events.Latest(publishedEvents) {
		e.Addr = bareAddr(e.Addr) // inet has no zones
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if line = appendASCII(nil, line); written+len(line) > publishedBytes {
			break
		}
		if i > 0 {
			line = append([]byte(",\n"), line...)
		}
		n, err := w.Write(line)
		if written += n; err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, publishTail)
	return err
}

// appendASCII writes a JSON text so that the encoding of a database is of no
// matter: every character that is not ASCII as \uXXXX, and a backslash as well,
// so that \uXXXX stands for itself wherever it is found. What PostgreSQL's text
// cannot hold becomes the replacement character.
func appendASCII(b, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch escape := text[:min(2, len(text))]; {
		case string(escape) == `\\`:
			b, n = append(b, `\u005c`...), 2
		case string(text[:min(6, len(text))]) == `\u0000`:
			b, n = append(b, `\ufffd`...), 6
		case r == '\\':
			b, n = append(b, escape...), len(escape)
		case r < utf8.RuneSelf:
			b = append(b, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		text = text[n:]
	}
	return b
}
