// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// escaper makes text safe for mdoc(7): a minus sign stays one when it is copied.
var escaper = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// escape makes text safe anywhere but at the beginning of a line.
func escape(text string) string { return escaper.Replace(text) }

// line makes text a line that is no macro.
func line(text string) string {
	text = escape(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text + "\n"
}

// lineWidth is what lines of the source keep to.
const lineWidth = 76

// running is running text: each sentence begins a line, and long ones are broken.
func running(text string) string {
	var out strings.Builder
	now := ""
	flush := func() {
		if now != "" {
			out.WriteString(line(now))
		}
		now = ""
	}
	for _, word := range strings.Fields(text) {
		if now != "" && len(escape(now))+1+len(escape(word)) > lineWidth {
			flush()
		}
		now = strings.TrimSpace(now + " " + word)
		if end := strings.TrimRight(word, `)"'`); strings.HasSuffix(end, ".") || strings.HasSuffix(end, "?") || strings.HasSuffix(end, "!") {
			flush()
		}
	}
	flush()
	return out.String()
}

// argument is text as the one argument of a macro.
func argument(text string) string {
	return `"` + strings.ReplaceAll(escape(text), `"`, `""`) + `"`
}

// literal is lines as they are.
func literal(lines []string) string {
	var out strings.Builder
	out.WriteString(".Bd -literal -offset indent\n")
	for _, text := range lines {
		out.WriteString(line(strings.TrimPrefix(text, "  ")))
	}
	out.WriteString(".Ed\n")
	return out.String()
}

// finish breaks the long lines of a page, leaves blank ones out, and lets a minus sign
// be one in hand-written text. Displays keep their lines.
func finish(page string) string {
	var out strings.Builder
	display := false
	for text := range strings.Lines(page) {
		text = strings.TrimSuffix(text, "\n")
		switch {
		case text == "":
			continue
		case strings.HasPrefix(text, ".Bd"):
			display = true
		case strings.HasPrefix(text, ".Ed"):
			display = false
		case !display && (strings.HasPrefix(text, ".Ql") || !strings.HasPrefix(text, ".")):
			text = minus(text)
		}
		if display || strings.HasPrefix(text, ".") {
			out.WriteString(text + "\n")
			continue
		}
		out.WriteString(broken(text))
	}
	return out.String()
}

// minus escapes what is not escaped yet.
func minus(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, `\-`, "-"), "-", `\-`)
}

// broken breaks one line of text that is escaped already.
func broken(text string) string {
	var out strings.Builder
	width := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case width+1+len(word) > lineWidth:
			out.WriteString("\n")
			width = 0
			if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "'") {
				out.WriteString(`\&`)
			}
		default:
			out.WriteString(" ")
			width++
		}
		out.WriteString(word)
		width += len(word)
	}
	return out.String() + "\n"
}
