// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/parser"
	"go/token"
	"slices"
	"testing"
)

func TestUndocumented(t *testing.T) {
	const source = `package p
// Good is documented.
type Good struct{}
type Bad struct{}
func (Good) Method() {}
func (*hidden[T]) Method() {}
// Kinds of things.
const ( A = 1; B = 2 )
var ( C int // C is documented.
 D, e int )
func hiddenFunc() {}
func Func() {}
`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range undocumented(file) {
		got = append(got, name.Name)
	}
	want := []string{"Bad", "Method", "D", "Func"}
	if !slices.Equal(got, want) {
		t.Errorf("undocumented: %q, want %q", got, want)
	}
}
