// SPDX-License-Identifier: Apache-2.0

// Command testvm makes the report of make test-vm: it reads the figures that the
// guests have written (a line of JSON each, see agent/agenttest/figure), and prints a
// table of source and situation for each kernel, and one line of JSON. It fails when
// a figure is missing.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/pgconmgr/pgconmgr/agent/agenttest/figure"
	"github.com/pgconmgr/pgconmgr/agent/agenttest/vm"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testvm:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	figures, err := read(in)
	if err != nil {
		return err
	}
	var kernels []string
	for _, r := range vm.Releases {
		kernels = append(kernels, r.Series)
	}
	s := sortOut(figures)
	printTable(out, s, kernels)
	if err := printJSON(out, s, kernels); err != nil {
		return err
	}
	return s.missing(kernels)
}

func read(in io.Reader) (figures []figure.Figure, err error) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var f figure.Figure
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return nil, fmt.Errorf("%q is no figure: %w", lines.Text(), err)
		}
		figures = append(figures, f)
	}
	return figures, lines.Err()
}
