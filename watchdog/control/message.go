// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what both ends accept.
const (
	maxQuestion = 4 << 10  // bytes of a line
	maxAnswer   = 64 << 10 // the same
	// MaxText is how many bytes the reason of a pause may have.
	MaxText = 200
)

// What can be asked for.
const (
	DoStatus   = "status"
	DoSessions = "sessions"
	DoPause    = "pause"
	DoResume   = "resume"
)

// Question is what a client wants.
type Question struct {
	Do     string `json:"do"`
	ForMS  int64  `json:"for_ms,omitempty"` // pause: how long
	By     string `json:"by,omitempty"`     // pause, resume: on whose behalf, besides the user that asks
	Reason string `json:"reason,omitempty"` // pause: what for
}

// For is how long a pause is to last.
func (q *Question) For() time.Duration { return time.Duration(q.ForMS) * time.Millisecond }

// Answer is one line of an answer; one of its fields is set.
type Answer struct {
	Error   string   `json:"error,omitempty"`
	Status  *Status  `json:"status,omitempty"`
	Session *Session `json:"session,omitempty"`
	End     bool     `json:"end,omitempty"`
}

// parseQuestion reads the line of a question and checks everything in it that has a
// bound of its own. How long a pause may be is the Handler's to know.
func parseQuestion(line []byte) (q Question, err error) {
	if err := json.Unmarshal(line, &q); err != nil {
		return q, fmt.Errorf("a question that is no JSON object: %w", err)
	}
	switch q.Do {
	case DoStatus, DoSessions, DoResume:
	case DoPause:
		// So many milliseconds do not overflow a time.Duration.
		if q.ForMS <= 0 || q.ForMS > int64(time.Duration(1<<62)/time.Millisecond) {
			return q, errors.New("pause: expected how long in for_ms")
		}
	default:
		return q, fmt.Errorf("unknown request %.20q: expected status, sessions, pause or resume", q.Do)
	}
	for _, text := range []string{q.By, q.Reason} {
		if err := CheckText(text); err != nil {
			return q, err
		}
	}
	return q, nil
}

// CheckText says what is wrong with a text that is to stand in logs and records.
func CheckText(s string) error {
	if len(s) > MaxText {
		return fmt.Errorf("a text of %d bytes: expected at most %d", len(s), MaxText)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		return errors.New("control characters in a text: expected one line")
	}
	return nil
}

// appendLine appends a message and its newline.
func appendLine(b []byte, message any) ([]byte, error) {
	text, err := json.Marshal(message)
	if err != nil {
		return b, err
	}
	return append(append(b, text...), '\n'), nil
}

// parseAnswer reads one line of an answer.
func parseAnswer(line []byte) (a Answer, err error) {
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("an answer that is no JSON object: %w", err)
	}
	return a, nil
}
