// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/pgconmgr/pgconmgr/watchdog"
)

// eventTexts say what the fields of a record are.
var eventTexts = map[string]string{
	"seq":               "Number of the record; a gap is a lost one.",
	"time":              "When it was recorded, as the wall clock says.",
	"kind":              "What happened.",
	"addr":              "Address of the client host.",
	"conmgr":            "Lasting identity of its conmgr, in hexadecimal digits.",
	"session":           "Number of the heartbeat session.",
	"warrant":           "Number of the verdict; its records have the same.",
	"case":              "What the verdict was: timeout, hang, disconnect, shutdown.",
	"reason":            "By what it was reached.",
	"silence_ms":        "Milliseconds from the last valid beat to the verdict.",
	"last_valid_at":     "When the last valid beat came.",
	"verdict_at":        "When the verdict was reached.",
	"outcome":           "What became of it.",
	"by":                "Who asked for a pause, or ended it.",
	"until":             "When a pause ends.",
	"dry_run":           "Nothing was terminated, because of watchdog.dry_run.",
	"evidence":          "What was seen of the client host since its last beat.",
	"joined":            "The verdict about the same address whose execution did the work.",
	"sockets":           "What became of the sockets, in words.",
	"sockets_destroyed": "Sockets that are gone.",
	"sockets_left":      "Sockets that are covered and not gone.",
	"sockets_spared":    "Sockets of replication that was spared, or of the agent.",
	"sockets_busy":      "Sockets that were heard after the verdict, and so left alone.",
	"backends":          "Database sessions that are covered.",
	"ended":             "Those of them that are gone.",
	"newer":             "Database sessions of the address that began after the verdict.",
	"spared":            "Replication that was spared.",
	"pids":              "Process ids of the covered database sessions, the first thousand.",
	"survivors":         "Those that did not end: pid, user, client_port, type, why. The first hundred.",
	"survivors_total":   "How many those are.",
	"steps_ms":          "Milliseconds that each step took.",
	"error":             "What went wrong.",
}

// events is the list of a record's fields.
func events() (string, error) {
	var out strings.Builder
	out.WriteString(".Bl -tag -width Ds -compact\n")
	for field := range reflect.TypeFor[watchdog.Event]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		text := eventTexts[name]
		if text == "" {
			return "", fmt.Errorf("field %s of records: nothing says what it is", name)
		}
		fmt.Fprintf(&out, ".It %s\n%s", argument(name), running(text))
	}
	out.WriteString(".El\n")
	return out.String(), nil
}
