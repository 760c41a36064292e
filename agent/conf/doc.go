// SPDX-License-Identifier: Apache-2.0

// Package conf reads configuration files of lines "name = value", as conmgr.conf
// and pgwatchdog.conf are, and checks them against a table of parameters. It
// knows no parameter by itself: a daemon brings a [Table], and gets back the
// [Values], the errors with file, line and what was expected, and the rows for
// SHOW CONFIG.
//
// # Grammar
//
//	file    = { line "\n" }
//	line    = [ name "=" value ] [ "#" anything ]
//	name    = letter { letter | digit | "_" | "." }        any case, folded to lower
//	value   = word | "'" { character | "''" } "'"
//	word    = one or more characters except blank, quote, "=", "#"
//
// A setting stands on one line. Blanks (space, tab, carriage return) around its
// parts do not count. Inside quotes "”" is one quotation mark and nothing else
// is special. A later line never overrides an earlier one: the same name twice is
// an error, since one of the two was a mistake.
//
// Values are numbers ("10"), durations ("10" in the parameter's unit, "250ms",
// "2s", "1min", "1h"), booleans in PostgreSQL's spellings (src/backend/utils/adt/
// bool.c), words of a fixed set, strings, and lists separated by commas. All may
// be quoted.
package conf
