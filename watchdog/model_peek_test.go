// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/pgconmgr/pgconmgr/agent/heartbeat"
	"github.com/pgconmgr/pgconmgr/agent/mono"
)

// The model copies heartbeat.Machines and compares them, so it looks into them.
// Each of their fields stands in one of these two lists.
var (
	// peeked are the fields that decide what a machine does next.
	peeked = []string{
		"shake", "state", "why", "link", "acked", "held", "stopped", "session", "seq", "first", "heardSeq",
		"lastValid", "pauseGuard", "lastAnswer", "deadline", "lateAt", "nextBeat", "nextProbe", "retryAt",
		"dialedAt", "attemptUntil", "helloAt",
	}
	// passedOver are the fields that do not, or are the same in all states.
	passedOver = []string{
		"cfg", "peer", "told", "signal", "eager", // the same in all states
		"graceUntil",          // the model has no link hints
		"previous", "endedAt", // only told, or for SetEager
		"seen", "received", "lost", "heardAt", "sent", // books of loss and round trip
		// The round trip in them moves the last question before a deadline by less
		// than a step of the model.
		"stats",
	}
)

var machineType = reflect.TypeFor[heartbeat.Machine]()

func TestModelKnowsEveryField(t *testing.T) {
	for _, f := range reflect.VisibleFields(machineType) {
		if f.Anonymous {
			continue // its fields are visible by themselves
		}
		if slices.Contains(peeked, f.Name) == slices.Contains(passedOver, f.Name) {
			t.Errorf("heartbeat.Machine.%s: the model has to compare it, or to say why not", f.Name)
		}
	}
}

var fieldIndex = func() map[string][]int {
	index := map[string][]int{}
	for _, name := range peeked {
		f, ok := machineType.FieldByName(name)
		if !ok {
			panic("model: heartbeat.Machine has no field " + name)
		}
		index[name] = f.Index
	}
	return index
}()

// peek reads the fields of a machine by name.
type peek struct{ v reflect.Value }

func look(m *heartbeat.Machine) peek { return peek{reflect.ValueOf(m).Elem()} }

// field is zero when only the other end has it.
func (p peek) field(name string) reflect.Value {
	f, err := p.v.FieldByIndexErr(fieldIndex[name])
	if err != nil {
		return reflect.Zero(machineType.FieldByIndex(fieldIndex[name]).Type)
	}
	return f
}

func (p peek) uint(name string) uint64          { return p.field(name).Uint() }
func (p peek) bool(name string) bool            { return p.field(name).Bool() }
func (p peek) instant(name string) mono.Instant { return mono.Instant(p.field(name).Int()) }

// copyMachine copies a machine with what it points to; the configuration is
// shared, as it never changes.
func copyMachine(m *heartbeat.Machine) *heartbeat.Machine {
	c := new(heartbeat.Machine)
	*c = *m
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Pointer || f.IsNil() || machineType.Field(i).Name == "cfg" {
			continue
		}
		own := reflect.New(f.Type().Elem())
		own.Elem().Set(reflect.NewAt(f.Type().Elem(), f.UnsafePointer()).Elem())
		reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Set(own)
	}
	return c
}

// copyDocket copies a docket with all its relations.
func copyDocket(d *Docket) *Docket {
	c := NewDocket(d.policy)
	c.lastID, c.pausedUntil, c.count = d.lastID, d.pausedUntil, d.count
	maps.Copy(c.terminated, d.terminated)
	twin := map[*relation]*relation{}
	for addr, site := range d.sites {
		for _, r := range site {
			own := *r
			if r.ending != unended {
				own.ending = new(*r.ending)
			}
			twin[r] = &own
			c.sites[addr] = append(c.sites[addr], &own)
		}
	}
	for id, r := range d.sessions {
		c.sessions[id] = twin[r]
	}
	for id, r := range d.warrants {
		c.warrants[id] = twin[r]
	}
	for _, r := range d.waits {
		c.waits = append(c.waits, twin[r])
	}
	return c
}
