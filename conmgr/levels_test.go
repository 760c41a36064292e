// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"log/slog"
	"strings"
	"testing"
)

func TestLevelsRankAsInPostgreSQL(t *testing.T) {
	t.Parallel()
	want := "DEBUG INFO NOTICE WARNING ERROR LOG FATAL PANIC"
	if got := strings.Join(levelNames(), " "); got != want {
		t.Errorf("levels %q, want %q", got, want)
	}
	for i, l := range levels {
		if i > 0 && l.level <= levels[i-1].level {
			t.Errorf("%s does not rank above %s", l.name, levels[i-1].name)
		}
		back, err := ParseLevel(strings.ToLower(l.name))
		if err != nil || back != l.level {
			t.Errorf("ParseLevel(%s) = %v, %v", l.name, back, err)
		}
	}
}

func TestLevelNameTakesTheLowerWord(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		level    slog.Level
		name     string
		severity int
	}{
		{-100, "DEBUG", 7},
		{slog.LevelInfo, "INFO", 6},
		{LevelNotice + 1, "NOTICE", 5},
		{slog.LevelError + 1, "ERROR", 4},
		{LevelLog, "LOG", 6},
		{100, "PANIC", 2},
	} {
		if got := LevelName(tt.level); got != tt.name {
			t.Errorf("LevelName(%d) = %s, want %s", tt.level, got, tt.name)
		}
		if got := SyslogSeverity(tt.level); got != tt.severity {
			t.Errorf("SyslogSeverity(%d) = %d, want %d", tt.level, got, tt.severity)
		}
	}
}

func TestParseLevelNamesTheWords(t *testing.T) {
	t.Parallel()
	_, err := ParseLevel("loud")
	if err == nil || !strings.Contains(err.Error(), "DEBUG, INFO, NOTICE, WARNING, ERROR, LOG, FATAL, PANIC") {
		t.Errorf("ParseLevel(loud) = %v", err)
	}
}
