// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgconmgr/pgconmgr/agent/sockdiag"
)

// texts is a row of the database; "~" is NULL.
func texts(text string) [][]byte {
	var row [][]byte
	for _, field := range strings.Split(text, "|") {
		if field == "~" {
			row = append(row, nil)
			continue
		}
		row = append(row, []byte(field))
	}
	return row
}

func TestSessionsAdd(t *testing.T) {
	t.Parallel()
	var s sessions
	for _, text := range []string{
		"true|5433|12|10.99.0.1|40000|app|shop|active|client backend|1700000000000000|1500000",
		"true|5433|13|::ffff:10.99.0.1|40001|~|~|~|~|~|~",
		"true|5433|14|fe80::1|65535|app|shop|idle|client backend|1700000000000000|-5",
	} {
		if err := s.add(texts(text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	first, second, third := s.backends[0], s.backends[1], s.backends[2]
	if s.port != 5433 || s.blind || first.pid != 12 || first.user != "app" || first.database != "shop" || first.state != "active" ||
		first.kind != "client backend" || first.queryAgo != 1500*time.Millisecond || first.queryStart.Unix() != 1700000000 {
		t.Errorf("session %+v", first)
	}
	if second.client != netip.MustParseAddrPort("10.99.0.1:40001") || second.user != "" || !second.queryStart.IsZero() {
		t.Errorf("session %+v", second)
	}
	if third.queryAgo != 0 || third.client != netip.MustParseAddrPort("[fe80::1]:65535") {
		t.Errorf("session %+v", third)
	}
	var none sessions
	if err := none.add(texts("false|5432|~|~|~|~|~|~|~|~|~")); err != nil || !none.blind || none.port != 5432 || len(none.backends) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	for _, text := range []string{
		"true", "true|x|~|~|~|~|~|~|~|~|~", "true|5432|x|10.99.0.1|1|~|~|~|~|~|~", "true|5432|1|db1|1|~|~|~|~|~|~",
		"true|5432|1|10.99.0.1|70000|~|~|~|~|~|~", "true|5432|1|10.99.0.1|1|~|~|~|~|x|1",
	} {
		if err := new(sessions).add(texts(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	socket := func(local, remote string, owners ...process) row {
		return row{Socket: sockdiag.Socket{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}, owners: owners}
	}
	rows := []row{
		socket("10.99.0.2:5432", "10.99.0.1:1"),                            // 0: the one
		socket("10.99.0.2:6000", "10.99.0.1:1"),                            // 1: another port
		socket("10.99.0.2:5432", "10.99.0.1:2", process{22, "postgres"}),   // 2: a twin, ours
		socket("10.99.0.200:5432", "10.99.0.1:2", process{23, "postgres"}), // 3: a twin, of another cluster
		socket("10.99.0.2:5432", "10.99.0.1:3"),                            // 4: a twin whose owner is hidden
		socket("10.99.0.200:5432", "10.99.0.1:3"),                          // 5
		socket("10.99.0.2:5432", "10.99.0.1:4"),                            // 6: a socket without session
	}
	s := sessions{port: 5432}
	for i, client := range []string{"10.99.0.1:1", "10.99.0.1:2", "10.99.0.1:3", "10.99.0.9:4"} {
		s.backends = append(s.backends, backend{pid: int32(21 + i), client: netip.MustParseAddrPort(client)})
	}
	s.join(rows)
	for i, want := range []int32{21, 0, 22, 0, 0, 0, 0} {
		var got int32
		if rows[i].backend != nil {
			got = rows[i].backend.pid
		}
		if got != want {
			t.Errorf("socket %d: session %d, want %d", i, got, want)
		}
	}
}
