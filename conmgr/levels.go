// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"fmt"
	"log/slog"
	"strings"
)

// Levels of messages besides slog's own four. Together they are the eight
// levels of log_min_messages in the order of PostgreSQL's server log: LOG ranks
// above ERROR, so an operator who asks for WARNING still sees every start, stop,
// change of state and fault.
const (
	LevelNotice slog.Level = 2  // NOTICE: between INFO and WARNING
	LevelLog    slog.Level = 10 // LOG: what happened, for the administrator
	LevelFatal  slog.Level = 12 // FATAL: conmgr gives up
	LevelPanic  slog.Level = 16 // PANIC: conmgr is broken
)

// levels are the names of log_min_messages, lowest first, each with the syslog
// severity that PostgreSQL gives it (write_syslog in elog.c; RFC 3164 section
// 4.1.1).
var levels = []struct {
	level    slog.Level
	name     string
	severity int
}{
	{slog.LevelDebug, "DEBUG", 7},
	{slog.LevelInfo, "INFO", 6},
	{LevelNotice, "NOTICE", 5},
	{slog.LevelWarn, "WARNING", 5},
	{slog.LevelError, "ERROR", 4},
	{LevelLog, "LOG", 6},
	{LevelFatal, "FATAL", 3},
	{LevelPanic, "PANIC", 2},
}

// LevelName returns the word of log_min_messages for a level; a level between
// two words takes the lower one.
func LevelName(l slog.Level) string { return levels[levelIndex(l)].name }

// SyslogSeverity returns the syslog severity of a level, as PostgreSQL chooses it.
func SyslogSeverity(l slog.Level) int { return levels[levelIndex(l)].severity }

// ParseLevel reads a word of log_min_messages in any case.
func ParseLevel(s string) (slog.Level, error) {
	for _, l := range levels {
		if strings.EqualFold(s, l.name) {
			return l.level, nil
		}
	}
	return 0, fmt.Errorf("unknown level %q: expected %s", s, strings.Join(levelNames(), ", "))
}

func levelIndex(l slog.Level) int {
	index := 0
	for i := range levels {
		if levels[i].level <= l {
			index = i
		}
	}
	return index
}

func levelNames() []string {
	names := make([]string, len(levels))
	for i := range levels {
		names[i] = levels[i].name
	}
	return names
}
