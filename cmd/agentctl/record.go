// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pgconmgr/pgconmgr/watchdog"
)

// record is an event with its fields in the order in which they were written. It
// knows none of them by itself: what an older or newer agent wrote is shown, too.
type record struct {
	watchdog.EventRecord
	fields []field
}

type field struct {
	name  string
	value any // as encoding/json has it, with json.Number
}

// recordOf takes a line apart. The reader has checked that it is an object.
func recordOf(r watchdog.EventRecord) record {
	out := record{EventRecord: r}
	d := json.NewDecoder(bytes.NewReader(r.Line))
	d.UseNumber()
	_, _ = d.Token() // {
	for d.More() {
		name, err1 := d.Token()
		var value any
		if err2 := d.Decode(&value); err1 != nil || err2 != nil {
			break
		}
		out.fields = append(out.fields, field{name.(string), value})
	}
	return out
}

// text is a field's value for people, "" when the record has none.
func (r *record) text(name string) string {
	for _, f := range r.fields {
		if f.name == name {
			return plain(f.value)
		}
	}
	return ""
}

// plain writes a value as people read it: "a", "1", "a=1 b=2", "x, y".
func plain(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return map[bool]string{true: "yes", false: "no"}[v]
	case json.Number:
		return plainNumber(v)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = plain(v[i])
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, name+"="+quoted(v[name]))
		}
		return strings.Join(parts, " ")
	}
	return ""
}

// plainNumber leaves out digits that nobody reads.
func plainNumber(n json.Number) string {
	f, err := n.Float64()
	if err != nil || !strings.Contains(n.String(), ".") {
		return n.String()
	}
	return strconv.FormatFloat(math.Round(f*1000)/1000, 'f', -1, 64)
}

// quoted is a value that stands among others.
func quoted(value any) string {
	text := plain(value)
	if strings.ContainsAny(text, " \"=,") || text == "" {
		return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`
	}
	return text
}

// isAbout reports whether the event's address is in one of the prefixes; no
// prefix means any event.
func (r *record) isAbout(peers []netip.Prefix) bool {
	if len(peers) == 0 {
		return true
	}
	addr := r.Addr.WithZone("").Unmap()
	return slices.ContainsFunc(peers, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// names reports whether one of the process numbers stands in the record, under a
// name that is or ends in pid or pids, at any depth.
func (r *record) names(pids []int64) bool {
	if len(pids) == 0 {
		return true
	}
	return slices.ContainsFunc(r.fields, func(f field) bool { return mentions(f.name, f.value, pids) })
}

func mentions(name string, value any, pids []int64) bool {
	switch v := value.(type) {
	case json.Number:
		n, err := v.Int64()
		isPID := strings.HasSuffix(name, "pid") || strings.HasSuffix(name, "pids")
		return isPID && err == nil && slices.Contains(pids, n)
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return mentions(name, item, pids) })
	case map[string]any:
		for key, item := range v {
			if mentions(key, item, pids) {
				return true
			}
		}
	}
	return false
}
