// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCommands(t *testing.T) {
	show := func(name string) command { return command{verb: verbShow, name: name, tag: "SHOW"} }
	target := func(a Target) command { return command{verb: verbTarget, target: a, tag: "TARGET"} }
	nothing := func(tag string) command { return command{verb: verbNothing, tag: tag} }
	for _, tt := range []struct {
		text string
		want []command
	}{
		{"", nil},
		{" ;; \n", nil},
		{"-- ping", nil},
		{"/* a /* nested */ comment */", nil},
		{"SHOW INSTANCES", []command{show("instances")}},
		{"show Applications ;", []command{show("applications")}},
		{"SHOW VERSION--comment", []command{show("version")}},
		{"SHOW/**/STATS; -- x\n TARGET primary;", []command{show("stats"), target(Primary)}},
		{"TARGET read-write", []command{target(ReadWrite)}},
		{"target 'prefer-read'", []command{target(PreferStandby)}},
		{"TARGET ANY", []command{target(Any)}},
		{"TARGET any Instance 12", []command{{verb: verbTarget, target: Any, only: new(12), tag: "TARGET"}}},
		{"SHUTDOWN restart", []command{{verb: verbShutdown, mode: ShutdownRestart, tag: "SHUTDOWN"}}},
		{"SET extra_float_digits = 3", []command{nothing("SET")}},
		{"SET application_name = 'a;''b'", []command{nothing("SET")}},
		{`SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY`, []command{nothing("SET")}},
		{"RESET ALL", []command{nothing("RESET")}},
		{"BEGIN", []command{{verb: verbBegin, tag: "BEGIN"}}},
		{"begin isolation level serializable", []command{{verb: verbBegin, tag: "BEGIN"}}},
		{"START TRANSACTION READ ONLY", []command{{verb: verbBegin, tag: "START TRANSACTION"}}},
		{"COMMIT; END", []command{{verb: verbCommit, tag: "COMMIT"}, {verb: verbCommit, tag: "COMMIT"}}},
		{"ROLLBACK", []command{{verb: verbRollback, tag: "ROLLBACK"}}},
		{"ROLLBACK TO SAVEPOINT a", []command{nothing("ROLLBACK")}},
		{"DISCARD ALL", []command{{verb: verbDiscard, tag: "DISCARD ALL"}}},
		{`DEALLOCATE "S_1"`, []command{{verb: verbDeallocate, name: "S_1", tag: "DEALLOCATE"}}},
		{"DEALLOCATE PREPARE ALL", []command{{verb: verbDeallocate, tag: "DEALLOCATE ALL"}}},
		{"SELECT 1", []command{{verb: verbFunction, name: "1", tag: "SELECT 1"}}},
		{"select pg_is_in_recovery()", []command{{verb: verbFunction, name: "pg_is_in_recovery()", tag: "SELECT 1"}}},
		{"SELECT pg_catalog.pg_is_in_recovery();", []command{{verb: verbFunction, name: "pg_is_in_recovery()", tag: "SELECT 1"}}},
		{"show transaction_read_only", []command{{verb: verbSetting, name: "transaction_read_only", tag: "SHOW"}}},
		{"SHOW TRANSACTION ISOLATION LEVEL", []command{{verb: verbSetting, name: "transaction_isolation", tag: "SHOW"}}},
		{"SHOW DateStyle", []command{{verb: verbSetting, name: "datestyle", tag: "SHOW"}}},
		{"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;", []command{
			{verb: verbFunction, name: "pg_advisory_unlock_all()", tag: "SELECT 1"},
			nothing("CLOSE CURSOR ALL"), nothing("UNLISTEN"), nothing("RESET")}},
	} {
		got, err := parseCommands(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(command{})); diff != "" {
			t.Errorf("%q: -want +got\n%s", tt.text, diff)
		}
	}
}

func TestParseCommandsRefused(t *testing.T) {
	for text, code := range map[string]string{
		"FLY":                          "42601",
		"SHOW":                         "42601",
		"SHOW NOTHING":                 "42601",
		"SHOW INSTANCES VERBOSE":       "42601",
		"SELECT * FROM pg_class":       "42601",
		"SELECT 1 UNION SELECT 2":      "42601",
		"SELECT pg_sleep()":            "42601",
		"TARGET":                       "42601",
		"TARGET primary standby":       "42601",
		"TARGET master":                "22023",
		"SHUTDOWN":                     "42601",
		"SHUTDOWN now":                 "42601",
		"SET":                          "42601",
		"START":                        "42601",
		"'unterminated":                "42601",
		"/* unterminated":              "42601",
		"DEALLOCATE":                   "42601",
		"$1":                           "42601",
		"SHOW INSTANCES; DROP TABLE x": "42601",
	} {
		_, err := parseCommands(text)
		if e, ok := errors.AsType[*pgError](err); !ok || e.code != code || e.severity != "ERROR" {
			t.Errorf("%q: error is %v, want ERROR %s", text, err, code)
		}
	}
}

func FuzzParseCommands(f *testing.F) {
	for _, s := range []string{"SHOW INSTANCES", "TARGET read-write; -- x", "SET a = 'b''c'", "/* /* */ */", `DEALLOCATE "x"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseCommands(text)
		if err != nil {
			if e, ok := errors.AsType[*pgError](err); !ok || e.severity != "ERROR" || len(e.message) > 1000 {
				t.Fatalf("error %v", err)
			}
			return
		}
		for _, c := range list {
			if c.tag == "" || c.verb == verbShow && consoleTables[c.name] == nil {
				t.Fatalf("%q gave %+v", text, c)
			}
		}
	})
}
