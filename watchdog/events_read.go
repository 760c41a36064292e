// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// EventRecord is one line of the events in a state directory: what tells it from
// others, and the whole of it. The agent that wrote it may be older or newer than
// the reader, so the rest of [Event] is left as it stands there.
type EventRecord struct {
	Seq  uint64     `json:"seq"`
	Time time.Time  `json:"time"`
	Kind string     `json:"kind"`
	Addr netip.Addr `json:"addr"` // zero when the event is not about a client
	// Line is the JSON object as it was written.
	Line json.RawMessage `json:"-"`
}

// EventReader reads the events of a state directory while an agent may be
// writing there. It needs the right to read the directory and its files, which
// belong to the agent's user. It is not for concurrent use.
type EventReader struct {
	dir  string
	file *os.File // the current one, as of the last look; nil before the first
	rest []byte   // the beginning of a line whose end was not yet written
	long bool     // inside a line that is too long to be one
	seq  uint64   // of the last record
	// damaged and missed count lines that could not be read, and gaps.
	damaged int
	missed  uint64
}

// NewEventReader returns a reader that begins with the oldest event that is kept.
func NewEventReader(dir string) *EventReader { return &EventReader{dir: dir} }

// Next returns the events that were written since the last call, oldest first. It
// does not wait: there may be none. An error that is [fs.ErrNotExist] means that
// the directory does not exist.
func (r *EventReader) Next() ([]EventRecord, error) {
	var records []EventRecord
	current, err := r.reopened()
	if err != nil {
		return nil, err
	}
	if r.file != nil {
		// To its end, also when the agent has begun another one meanwhile.
		if err := r.drain(r.file, &records); err != nil {
			return records, err
		}
	}
	if current == nil {
		return records, nil
	}
	if err := r.readOld(&records); err != nil {
		_ = current.Close()
		return records, err
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file = current
	return records, r.drain(r.file, &records)
}

// reopened returns the current file when it is another one than the open one.
func (r *EventReader) reopened() (*os.File, error) {
	f, err := os.Open(filepath.Join(r.dir, eventsFile))
	if errors.Is(err, fs.ErrNotExist) {
		// No event yet, or between the two steps of a rotation.
		_, err = os.Stat(r.dir)
	}
	if err != nil || f == nil {
		return nil, err
	}
	if r.file == nil {
		return f, nil
	}
	open, err1 := r.file.Stat()
	now, err2 := f.Stat()
	if err := errors.Join(err1, err2); err != nil || os.SameFile(open, now) {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// readOld reads the file before the current one, unless it is the one that was
// open: several may have come and gone since the last look.
func (r *EventReader) readOld(records *[]EventRecord) error {
	r.endLine()
	old, err := os.Open(filepath.Join(r.dir, eventsOld))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	if r.file != nil {
		open, err1 := r.file.Stat()
		now, err2 := old.Stat()
		if err := errors.Join(err1, err2); err != nil || os.SameFile(open, now) {
			return err
		}
	}
	err = r.drain(old, records)
	r.endLine()
	return err
}

// endLine gives up a last line that was torn by a crash: nobody will end it.
func (r *EventReader) endLine() {
	if len(r.rest) > 0 || r.long {
		r.damaged++
	}
	r.rest, r.long = nil, false
}

// drain reads a file from where it stands to its end.
func (r *EventReader) drain(f *os.File, records *[]EventRecord) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		r.take(buf[:n], records)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// take cuts text into lines.
func (r *EventReader) take(text []byte, records *[]EventRecord) {
	for {
		line, rest, ended := bytes.Cut(text, []byte{'\n'})
		if len(r.rest)+len(line) > eventMaxBytes {
			r.long, r.rest, line = true, nil, nil
		}
		r.rest = append(r.rest, line...)
		if !ended {
			return
		}
		r.takeLine(r.rest, records)
		r.rest, r.long, text = nil, false, rest
	}
}

func (r *EventReader) takeLine(line []byte, records *[]EventRecord) {
	if len(line) == 0 && !r.long {
		return
	}
	record := EventRecord{Line: line}
	if r.long || json.Unmarshal(line, &record) != nil || record.Seq == 0 {
		r.damaged++
		return
	}
	if record.Seq <= r.seq {
		return
	}
	if r.seq > 0 {
		r.missed += record.Seq - r.seq - 1
	}
	r.seq = record.Seq
	*records = append(*records, record)
}

// Damaged returns how many lines could not be read so far, such as one torn by a
// crash.
func (r *EventReader) Damaged() int { return r.damaged }

// Missed returns how many events are missing between those read so far.
func (r *EventReader) Missed() uint64 { return r.missed }

// Close closes the file that the reader has open.
func (r *EventReader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
