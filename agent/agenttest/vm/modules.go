// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
)

// order returns the paths of the modules and of all they depend on, in the order
// to load them. One that the kernel package does not have is built in.
func (k *Kernel) order(names []string) ([]string, error) {
	var paths []string
	var visit func(name string) error
	visit = func(name string) error {
		path, ok := k.modules[moduleName(name)]
		if !ok || slices.Contains(paths, path) {
			return nil
		}
		needs, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if err := visit(need); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// moduleName is the kernel's own spelling: files have both characters.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// dependencies reads what a module says of itself (modinfo(8)): an unpacked
// package has no modules.dep.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("module %s: no .modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	for field := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(field), "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
