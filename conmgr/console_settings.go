// SPDX-License-Identifier: Apache-2.0

package conmgr

import "github.com/jackc/pgx/v5/pgproto3"

// serverVersion is what drivers are told: old enough that no client warns of a
// server newer than itself, and no older than PostgreSQL supports.
const serverVersion = "13.0 (pgconmgr)"

// setting is a PostgreSQL parameter that drivers ask for unasked.
type setting struct {
	label string // the column's name, as PostgreSQL spells it
	value string
}

// settings are the parameters that SHOW knows, by lower-case name.
// application_name is the session's own.
var settings = map[string]setting{
	"server_version":                {"server_version", serverVersion},
	"server_version_num":            {"server_version_num", "130000"},
	"server_encoding":               {"server_encoding", "UTF8"},
	"client_encoding":               {"client_encoding", "UTF8"},
	"datestyle":                     {"DateStyle", "ISO, MDY"},
	"timezone":                      {"TimeZone", "UTC"},
	"integer_datetimes":             {"integer_datetimes", "on"},
	"standard_conforming_strings":   {"standard_conforming_strings", "on"},
	"in_hot_standby":                {"in_hot_standby", "off"},
	"default_transaction_read_only": {"default_transaction_read_only", "off"},
	"transaction_read_only":         {"transaction_read_only", "off"},
	"transaction_isolation":         {"transaction_isolation", "read committed"},
	"default_transaction_isolation": {"default_transaction_isolation", "read committed"},
	"application_name":              {"application_name", ""},
	"search_path":                   {"search_path", "pg_catalog"},
	"extra_float_digits":            {"extra_float_digits", "1"},
	"max_identifier_length":         {"max_identifier_length", "63"},
	"is_superuser":                  {"is_superuser", "off"},
	"statement_timeout":             {"statement_timeout", "0"},
	"lock_timeout":                  {"lock_timeout", "0"},
}

// function is a query of one value that drivers send unasked.
type function struct {
	column column
	value  any
}

// functions are what SELECT knows.
var functions = map[string]function{
	"1":                        {int8col("?column?"), int64(1)},
	"pg_is_in_recovery()":      {text("pg_is_in_recovery"), "f"},
	"version()":                {text("version"), "PostgreSQL " + serverVersion},
	"current_schema()":         {text("current_schema"), "pg_catalog"},
	"current_database()":       {text("current_database"), consoleDatabase},
	"pg_advisory_unlock_all()": {text("pg_advisory_unlock_all"), ""},
}

// appendParameters appends the ParameterStatus messages of a new session.
func appendParameters(b []byte, applicationName, version string) []byte {
	for _, name := range [...]string{"server_version", "server_encoding", "client_encoding", "datestyle",
		"integer_datetimes", "standard_conforming_strings", "in_hot_standby",
		"default_transaction_read_only", "application_name"} {
		s := settings[name]
		if name == "application_name" {
			s.value = applicationName
		}
		b = appendMessage(b, &pgproto3.ParameterStatus{Name: s.label, Value: s.value})
	}
	return appendMessage(b, &pgproto3.ParameterStatus{Name: "conmgr_version", Value: version})
}
