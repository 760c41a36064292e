// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/lmittmann/tint"
)

// Formats of messages on stderr, the values of --log-format.
const (
	FormatAuto  = "auto"  // color on a terminal, else text
	FormatText  = "text"  // one line: time, process, level, message, attributes
	FormatColor = "color" // for people
	FormatJSON  = "json"  // one object per line
)

// LogOptions say where messages go. The zero value writes nothing.
type LogOptions struct {
	Stderr    io.Writer // nil: not to stderr; daemons put a Queue in front
	Syslog    *Syslog   // nil: not to syslog
	Format    string    // of stderr; empty is FormatAuto
	Level     slog.Leveler
	LevelName func(slog.Level) string // nil: slog's names
	Getenv    func(string) string     // nil: os.Getenv
}

// NewLogger makes the one logger of a program. Lines on stderr have no time and
// no process id when stderr is the systemd journal, which has its own.
func NewLogger(o LogOptions) (*slog.Logger, error) {
	if o.LevelName == nil {
		o.LevelName = slog.Level.String
	}
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	var handlers []slog.Handler
	if o.Stderr != nil {
		h, err := stderrHandler(o)
		if err != nil {
			return nil, err
		}
		handlers = append(handlers, h)
	}
	if o.Syslog != nil {
		handlers = append(handlers, newLineHandler(o.Level, o.LevelName, o.Syslog.write))
	}
	log := slog.New(slog.NewMultiHandler(handlers...))
	if len(handlers) == 1 {
		log = slog.New(handlers[0])
	}
	if q, ok := o.Stderr.(*Queue); ok {
		q.onLoss(func(lost int) {
			log.Warn("log messages lost: they were not taken from stderr in time", "lost", lost)
		})
	}
	return log, nil
}

// file is the file behind a writer, nil when there is none.
func file(w io.Writer) *os.File {
	if q, ok := w.(*Queue); ok {
		w = q.w
	}
	f, _ := w.(*os.File)
	return f
}

func stderrHandler(o LogOptions) (slog.Handler, error) {
	format := o.Format
	if format == FormatAuto || format == "" {
		format = FormatText
		if f := file(o.Stderr); f != nil && IsTerminal(f) && o.Getenv("NO_COLOR") == "" {
			format = FormatColor
		}
	}
	switch format {
	case FormatText:
		p := &printer{w: o.Stderr, pid: os.Getpid(), bare: isJournal(o.Stderr, o.Getenv("JOURNAL_STREAM"))}
		return newLineHandler(o.Level, o.LevelName, p.write), nil
	case FormatColor:
		return tint.NewTextHandler(o.Stderr, &tint.Options{
			Level: o.Level, TimeFormat: "15:04:05.000", ReplaceAttr: renameLevel(colorLevel(o.LevelName)),
		}), nil
	case FormatJSON:
		return slog.NewJSONHandler(o.Stderr, &slog.HandlerOptions{
			Level: o.Level, ReplaceAttr: renameLevel(plainLevel(o.LevelName)),
		}), nil
	}
	return nil, fmt.Errorf("unknown log format %q: expected %s, %s, %s or %s", o.Format, FormatAuto, FormatText, FormatColor, FormatJSON)
}

// renameLevel gives the level of a message its name; a level among the attributes
// stays as it is.
func renameLevel(name func(slog.Level) slog.Attr) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		level, ok := a.Value.Any().(slog.Level)
		if len(groups) == 0 && a.Key == slog.LevelKey && ok {
			return name(level)
		}
		return a
	}
}

func plainLevel(name func(slog.Level) string) func(slog.Level) slog.Attr {
	return func(l slog.Level) slog.Attr { return slog.String(slog.LevelKey, name(l)) }
}

// colorLevel paints by slog's ranks: green to Info, yellow to Warn, red above.
func colorLevel(name func(slog.Level) string) func(slog.Level) slog.Attr {
	const red, green, yellow = 9, 10, 11
	return func(l slog.Level) slog.Attr {
		color := uint8(green)
		switch {
		case name(l) == "LOG":
		case l >= slog.LevelError:
			color = red
		case l >= slog.LevelWarn:
			color = yellow
		}
		return tint.Attr(color, slog.String(slog.LevelKey, name(l)))
	}
}

// isJournal compares w with the device and inode in JOURNAL_STREAM, as
// systemd.exec(5) asks for: the variable alone is inherited by programs whose
// stderr is a file.
func isJournal(w io.Writer, stream string) bool {
	f := file(w)
	if f == nil || stream == "" {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// oneLine keeps a message from looking like two: control characters and bytes
// that are no text are escaped.
func oneLine(s string) string {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\ufffd' || r == '\u2028' || r == '\u2029' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return ""
			}
			return strings.ReplaceAll(string(quoted), "\x7f", `\u007f`)
		}
	}
	return s
}
