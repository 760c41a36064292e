// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// targetOption is the setting by which a session asks for another target than
// proxy_target_session_attrs. It never reaches the instance.
const targetOption = "conmgr.target_session_attrs"

// forwardStartup makes the first packet for the instance, its length word
// included, from the body of the client's: the same bytes, whatever the version,
// in their order, duplicates too, without what is meant for conmgr. It also
// returns the target that is asked for, otherwise for lack of one.
//
// As in PostgreSQL (process_startup_options) the last options parameter counts,
// and a setting that is a parameter of its own more than one inside options.
func forwardStartup(body []byte, otherwise Target) (packet []byte, t Target, err error) {
	packet = make([]byte, 4, 4+len(body))
	packet = append(packet, body[:4]...)
	var inOptions, own *string
	for rest := body[4:]; ; {
		name, behind, ok := bytes.Cut(rest, []byte{0})
		if !ok || len(name) == 0 {
			break // the layout was checked before
		}
		value, next, _ := bytes.Cut(behind, []byte{0})
		pair := rest[:len(rest)-len(next)]
		rest = next
		switch {
		case strings.EqualFold(string(name), targetOption):
			own = new(string(value))
			continue
		case string(name) == "options":
			stripped, target, err := stripOptions(string(value))
			if err != nil {
				return nil, otherwise, err
			}
			if inOptions = target; target != nil {
				if stripped == "" {
					continue
				}
				pair = []byte("options\x00" + stripped + "\x00")
			}
		}
		packet = append(packet, pair...)
	}
	packet = append(packet, 0)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)))
	if own == nil {
		own = inOptions
	}
	if own == nil {
		return packet, otherwise, nil
	}
	if t, err = ParseTarget(*own); err != nil {
		return nil, otherwise, fatal("22023", "%s: %s", targetOption, err)
	}
	return packet, t, nil
}

// stripOptions takes conmgr's setting out of an options string and returns what
// is left, and the value that counts, nil when there is none. The string is read
// as PostgreSQL reads it: words as in pg_split_opts, then getopt(3) with the
// letters of process_postgres_switches. Where it would find an error it stops,
// and the instance reports that.
func stripOptions(s string) (rest string, value *string, err error) {
	words := splitOptions(s)
	var left strings.Builder
	kept := 0 // bytes of s that were dealt with
	for i := 0; i < len(words); i++ {
		from, arg, next, ok := settingIn(words, i)
		if !ok {
			break
		}
		i = next
		if from < 0 {
			continue
		}
		name, v, hasValue := strings.Cut(arg, "=")
		if !strings.EqualFold(strings.ReplaceAll(name, "-", "_"), targetOption) {
			continue
		}
		if !hasValue {
			return s, nil, fatal("42601", "%s in options requires a value", targetOption)
		}
		value = &v
		left.WriteString(strings.TrimRight(s[kept:from], optionSpace))
		kept = words[next].end
	}
	if value == nil {
		return s, nil, nil
	}
	left.WriteString(s[kept:])
	return strings.Trim(left.String(), optionSpace), value, nil
}

// Letters of process_postgres_switches (postgres.c), those of older servers
// included.
const (
	lettersWithArgument = "BCcDdfhkMmNoprStvW-"
	lettersAlone        = "bEeFijlnOPsT"
)

// settingIn looks for -c or -- in the i-th word. It returns where in the string
// that begins, negative for nowhere, its argument, and the index of the last word
// that belongs to the i-th; ok is false where getopt would stop.
func settingIn(words []optionWord, i int) (from int, arg string, next int, ok bool) {
	w := &words[i]
	if len(w.text) < 2 || w.text[0] != '-' || w.text == "--" {
		return -1, "", i, false
	}
	for j := 1; j < len(w.text); j++ {
		letter := w.text[j]
		if strings.IndexByte(lettersAlone, letter) >= 0 {
			continue
		}
		if strings.IndexByte(lettersWithArgument, letter) < 0 {
			return -1, "", i, false
		}
		if arg = w.text[j+1:]; arg == "" {
			if i++; i == len(words) {
				return -1, "", i, false
			}
			arg = words[i].text
		}
		if letter != 'c' && letter != '-' {
			return -1, "", i, true
		}
		if j == 1 {
			return w.at[0], arg, i, true
		}
		return w.at[j], arg, i, true
	}
	return -1, "", i, true
}

// optionSpace is what isspace(3) knows in the locale C.
const optionSpace = " \t\n\v\f\r"

// optionWord is one word of an options string.
type optionWord struct {
	text string
	at   []int // where each byte of text begins in the string, its backslash included
	end  int
}

// splitOptions splits a string at blanks; a backslash takes the meaning from the
// byte behind it.
func splitOptions(s string) []optionWord {
	var words []optionWord
	for i := 0; ; {
		for i < len(s) && strings.IndexByte(optionSpace, s[i]) >= 0 {
			i++
		}
		if i == len(s) {
			return words
		}
		var w optionWord
		var text []byte
		for i < len(s) && strings.IndexByte(optionSpace, s[i]) < 0 {
			begin := i
			if s[i] == '\\' {
				if i++; i == len(s) {
					break
				}
			}
			text, w.at = append(text, s[i]), append(w.at, begin)
			i++
		}
		w.text, w.end = string(text), i
		words = append(words, w)
	}
}
