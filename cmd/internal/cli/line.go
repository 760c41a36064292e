// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// sink takes one message: "LEVEL:  message key=value ...", without a newline.
// Calls do not overlap; text is only valid during the call.
type sink func(at time.Time, level slog.Level, text []byte) error

// lineHandler writes messages as PostgreSQL's server log has them, with the
// attributes behind the message as slog's text handler prints them.
type lineHandler struct {
	level  slog.Leveler
	name   func(slog.Level) string
	attrs  slog.Handler // prints attributes into shared.buf
	shared *lineState
}

// lineState is what a handler and those made of it by With share.
type lineState struct {
	sink sink

	mu  sync.Mutex // guards the following
	buf bytes.Buffer
}

func newLineHandler(level slog.Leveler, name func(slog.Level) string, s sink) slog.Handler {
	state := &lineState{sink: s}
	attrs := slog.NewTextHandler(&state.buf, &slog.HandlerOptions{
		Level:       slog.Level(-1 << 20),
		ReplaceAttr: dropHead,
	})
	return &lineHandler{level: level, name: name, attrs: attrs, shared: state}
}

// dropHead removes what stands in front of the attributes.
func dropHead(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey || a.Key == slog.TimeKey) {
		return slog.Attr{}
	}
	return a
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	buf := &h.shared.buf
	buf.Reset()
	fmt.Fprintf(buf, "%s:  %s ", h.name(r.Level), oneLine(r.Message))
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	return h.shared.sink(r.Time, r.Level, bytes.TrimRight(buf.Bytes(), " \n"))
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &lineHandler{level: h.level, name: h.name, attrs: h.attrs.WithAttrs(attrs), shared: h.shared}
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	return &lineHandler{level: h.level, name: h.name, attrs: h.attrs.WithGroup(name), shared: h.shared}
}

// printer is the sink for stderr: PostgreSQL's default log_line_prefix, '%m [%p] '.
type printer struct {
	w    io.Writer
	pid  int
	bare bool // neither time nor process: the journal has both
	buf  []byte
}

func (p *printer) write(at time.Time, _ slog.Level, text []byte) error {
	p.buf = p.buf[:0]
	if !p.bare {
		p.buf = at.AppendFormat(p.buf, "2006-01-02 15:04:05.000 MST")
		p.buf = fmt.Appendf(p.buf, " [%d] ", p.pid)
	}
	p.buf = append(append(p.buf, text...), '\n')
	_, err := p.w.Write(p.buf) // one write per line, so that lines of two processes do not mix
	return err
}
