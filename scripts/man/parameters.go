// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/pgconmgr/pgconmgr/agent/conf"
)

// parameters is a list of all parameters of a table, with everything that the table
// says of them.
func parameters(t conf.Table) string {
	var out strings.Builder
	out.WriteString(".Bl -tag -width Ds\n")
	for i := range t {
		p := &t[i]
		fmt.Fprintf(&out, ".It %s\n%s", argument(p.Name), running(sentence(p.About)))
		if p.Low != "" {
			out.WriteString(running("Too low: " + sentence(p.Low)))
		}
		if p.High != "" {
			out.WriteString(running("Too high: " + sentence(p.High)))
		}
		out.WriteString(running("(" + p.Facts() + ")"))
		if p.Default != "" {
			fmt.Fprintf(&out, "Default:\n.Ql %s\n", argument(p.Default))
		}
	}
	out.WriteString(".El\n")
	return out.String()
}

// sentence ends text with a full stop.
func sentence(text string) string {
	if strings.HasSuffix(text, ".") {
		return text
	}
	return text + "."
}
