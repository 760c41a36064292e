#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Compiles bpf/ into the objects of agent/linkhint, and records the compiler.
# With --check it compiles elsewhere and compares: what is committed must be what
# its source says. Another compiler gives other objects, so without the recorded
# one it says so and checks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

clang=${CLANG:-clang}
record=bpf/CLANG_VERSION
package=agent/linkhint

version() { "$clang" --version 2>/dev/null | head -n 1; }

# compile DIR writes the objects and what loads them. Paths in them are relative
# to the package.
compile() (
	cd "$package"
	go tool bpf2go -cc "$clang" -strip llvm-strip -target amd64,arm64 -output-dir "$1" \
		-go-package linkhint linkhint ../../bpf/linkhint.bpf.c -- -I../../bpf/include -O2 -Wall -Werror
)

case ${1:-} in
"")
	compile .
	version >"$record"
	;;
--check)
	if [ "$(version || true)" != "$(cat "$record")" ] || ! type -P llvm-strip >/dev/null; then
		echo "generate: the BPF objects are not checked: that needs $(cat "$record") with llvm-strip, here is $(version || echo "no $clang")"
		exit 0
	fi
	fresh=$(mktemp -d)
	trap 'rm -rf "$fresh"' EXIT
	compile "$fresh" >/dev/null
	failed=0
	for file in "$fresh"/*; do
		if ! cmp -s "$file" "$package/$(basename "$file")"; then
			echo "generate: $package/$(basename "$file") is not what bpf/ says: make generate" >&2
			failed=1
		fi
	done
	exit "$failed"
	;;
*)
	echo "usage: $0 [--check]" >&2
	exit 2
	;;
esac
