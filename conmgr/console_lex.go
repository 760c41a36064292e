// SPDX-License-Identifier: Apache-2.0

package conmgr

import "strings"

// tokenKind is what a piece of SQL text is.
type tokenKind uint8

const (
	tokenWord   tokenKind = iota // letters, digits, _ and inner . and -: read-write is one word
	tokenQuoted                  // 'text' or "name", without its quotes
	tokenSymbol                  // one byte of anything else
	tokenEnd                     // a semicolon
)

type token struct {
	kind tokenKind
	text string // words in lower case
}

// lex splits text into tokens and drops white space and comments, nested ones
// too (scan.l of PostgreSQL).
func lex(text string) ([]token, error) {
	var out []token
	for text != "" {
		rest, err := skipBlank(text)
		if err != nil {
			return nil, err
		}
		if text = rest; text == "" {
			break
		}
		t, n, err := nextToken(text)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
		text = text[n:]
	}
	return out, nil
}

// skipBlank drops white space and comments at the front.
func skipBlank(s string) (string, error) {
	for {
		s = strings.TrimLeft(s, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(s, "--"):
			i := strings.IndexAny(s, "\r\n")
			if i < 0 {
				return "", nil
			}
			s = s[i:]
		case strings.HasPrefix(s, "/*"):
			n := commentLength(s)
			if n < 0 {
				return "", failure("42601", "unterminated /* comment")
			}
			s = s[n:]
		default:
			return s, nil
		}
	}
}

// commentLength returns the length of the comment that s begins with, or -1
// when it has no end.
func commentLength(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return -1
}

// nextToken reads the token at the front of s, which is not blank.
func nextToken(s string) (token, int, error) {
	switch c := s[0]; {
	case c == ';':
		return token{kind: tokenEnd}, 1, nil
	case c == '\'' || c == '"':
		return quoted(s)
	case isWordByte(c):
		n := wordLength(s)
		return token{tokenWord, strings.ToLower(s[:n])}, n, nil
	default:
		return token{tokenSymbol, s[:1]}, 1, nil
	}
}

// quoted reads a text in quotes; a doubled quote stands for itself.
func quoted(s string) (token, int, error) {
	q := s[:1]
	for i := 1; i < len(s); i++ {
		if s[i] != q[0] {
			continue
		}
		if i+1 < len(s) && s[i+1] == q[0] {
			i++
			continue
		}
		return token{tokenQuoted, strings.ReplaceAll(s[1:i], q+q, q)}, i + 1, nil
	}
	return token{}, 0, failure("42601", "unterminated quoted string")
}

// wordLength returns the length of the word at the front of s: a - belongs to
// it only between two other word bytes, so that a comment ends it.
func wordLength(s string) int {
	i := 1
	for i < len(s) {
		inner := s[i] == '-' && i+1 < len(s) && isWordByte(s[i+1])
		if !isWordByte(s[i]) && s[i] != '.' && !inner {
			break
		}
		i++
	}
	return i
}

func isWordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
